# SPDX-License-Identifier: Apache-2.0
"""The kernel's calls that Python has no name for, by the C library."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

GET_DUMPABLE, SET_DUMPABLE = 3, 4
SET_SECCOMP = 22
CAPBSET_DROP = 24
SET_CHILD_SUBREAPER, GET_CHILD_SUBREAPER = 36, 37
SET_NO_NEW_PRIVS = 38
CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL = 47, 4


def prctl(option: int, *values: int | ctypes.Array[ctypes.c_char]) -> int:
    """Change or ask for an attribute of this process, and return the answer.

    Raises:
        OSError: it refuses.
    """  # noqa: DOC501  raised through refusal
    padded = [*values, *([0] * (4 - len(values)))]
    arguments = [ctypes.c_ulong(v) if isinstance(v, int) else v for v in padded]
    answer: int = libc.prctl(ctypes.c_int(option), *arguments)
    if answer < 0:
        raise refusal("prctl")
    return answer


def is_subreaper() -> bool:
    """Tell whether orphans below this process become its children.

    Raises:
        OSError: the kernel does not tell.
    """  # noqa: DOC501  raised through refusal
    answer = ctypes.c_int(0)
    if libc.prctl(GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) != 0:
        raise refusal("prctl")
    return bool(answer.value)


def refusal(call: str) -> OSError:
    """Return what the call that just failed means."""
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
