# SPDX-License-Identifier: Apache-2.0
"""The calls of the kernel that a confined process may make: a list, and its filter.

Everything that is not in `ALLOWED` is refused with EPERM (`clone3` with ENOSYS, as by
a kernel without it), so that a call which a later kernel brings is refused too.
Numbers of another architecture end the process. The table in docs/threat-model.md is
made of this list; tests/security/test_system_calls.py tries every number there is.

Sources: seccomp(2), linux/seccomp.h, linux/filter.h, asm/unistd_64.h and
asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from updaterd.artifact.worker.confine import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    _Step = tuple[int, int | str, int | str, int]

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH by machine."""

ANY, MADE_FILE, MADE_FOLDER, NO_CODE_MAPPED, NO_CODE_HERE, OF_A_DESCRIPTOR = range(6)
"""On what condition a call is allowed."""

ALLOWED: tuple[tuple[str, int, int, int], ...] = (
    # name, number on x86_64, on aarch64, condition
    ("read", 0, 63, ANY),
    ("write", 1, 64, ANY),
    ("close", 3, 57, ANY),
    ("fstat", 5, 80, ANY),
    ("lseek", 8, 62, ANY),
    ("mmap", 9, 222, NO_CODE_MAPPED),
    ("mprotect", 10, 226, NO_CODE_HERE),
    ("munmap", 11, 215, ANY),
    ("brk", 12, 214, ANY),
    ("rt_sigaction", 13, 134, ANY),
    ("rt_sigprocmask", 14, 135, ANY),
    ("rt_sigreturn", 15, 139, ANY),
    ("pread64", 17, 67, ANY),
    ("readv", 19, 65, ANY),
    ("writev", 20, 66, ANY),
    ("mremap", 25, 216, ANY),
    ("madvise", 28, 233, ANY),
    ("getpid", 39, 172, ANY),
    ("exit", 60, 93, ANY),
    ("fcntl", 72, 25, OF_A_DESCRIPTOR),
    ("gettimeofday", 96, 169, ANY),
    ("getrusage", 98, 165, ANY),
    ("sysinfo", 99, 179, ANY),
    ("sigaltstack", 131, 132, ANY),
    ("gettid", 186, 178, ANY),
    ("futex", 202, 98, ANY),
    ("restart_syscall", 219, 128, ANY),
    ("clock_gettime", 228, 113, ANY),
    ("clock_getres", 229, 114, ANY),
    ("exit_group", 231, 94, ANY),
    ("openat", 257, 56, MADE_FILE),
    ("mkdirat", 258, 34, MADE_FOLDER),
    ("newfstatat", 262, 79, ANY),
    ("preadv", 295, 69, ANY),
    ("getrandom", 318, 278, ANY),
    ("preadv2", 327, 286, ANY),
    ("statx", 332, 291, ANY),
)
"""What a parser needs: memory, descriptors it has, the clock, and files to make."""

CONDITIONS = {
    ANY: "",
    MADE_FILE: "a new file gets mode 0755 at most",
    MADE_FOLDER: "with mode 0755 at most",
    NO_CODE_MAPPED: "no memory that can be executed",
    NO_CODE_HERE: "none that could be executed from then on",
    OF_A_DESCRIPTOR: "to copy a descriptor, and to ask for its flags",
}
"""The conditions in words."""

CLONE3 = 435
X32 = 0x40000000

_MODE_MASK = 0o755
_CREATES = os.O_CREAT | 0o20000000  # O_CREAT, __O_TMPFILE
_PROT_EXEC = 4
_QUERIES = (1, 3, 1030)  # F_GETFD, F_GETFL, F_DUPFD_CLOEXEC
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_REFUSE, _UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def filter_calls() -> bool:
    """Filter this process's calls; tell whether the kernel does."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    code = program(machine)
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: unsigned short len, then (aligned) a pointer
    fprog = ctypes.create_string_buffer(
        struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    )
    try:
        kernel.prctl(kernel.SET_SECCOMP, 2, fprog)
    except OSError:
        return False
    return True


def program(machine: str) -> bytes:
    """Return the filter for a machine, as BPF.

    Each allowed call jumps to its condition, or to the last but one instruction: jumps
    only lead forward, and over 255 instructions at most.
    """
    checks = {
        # offset of the low half of each argument: 16 + 8 * its place
        MADE_FILE: _masked(2, _CREATES, 3),
        MADE_FOLDER: _masked(None, 0, 2),
        NO_CODE_MAPPED: _without(2, _PROT_EXEC),
        NO_CODE_HERE: _without(2, _PROT_EXEC),
        OF_A_DESCRIPTOR: _one_of(1, _QUERIES),
    }
    steps: list[_Step] = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_ANSWER, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_AT_LEAST, "refuse", 0, X32),  # other numbers for the same calls
        (_EQUAL, "unknown", 0, CLONE3),
    ]
    for _, x86_64, aarch64, condition in ALLOWED:
        place = "allow" if condition == ANY else f"check {condition}"
        steps.append((_EQUAL, place, 0, x86_64 if machine == "x86_64" else aarch64))
    labels: dict[str, int] = {}
    steps.append((_ANSWER, 0, 0, _REFUSE))
    for condition, check in checks.items():
        labels[f"check {condition}"] = len(steps)
        steps += check
    for name, answer in (
        ("refuse", _REFUSE), ("unknown", _UNKNOWN), ("allow", _ALLOW)
    ):  # fmt: skip
        labels[name] = len(steps)
        steps.append((_ANSWER, 0, 0, answer))

    def distance(jump: int | str, at: int) -> int:
        return labels[jump] - at - 1 if isinstance(jump, str) else jump

    return b"".join(
        struct.pack("@HBBI", code, distance(yes, at), distance(no, at), value)
        for at, (code, yes, no, value) in enumerate(steps)
    )


def _argument(place: int) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, 16 + 8 * place)


def _masked(flags: int | None, creates: int, mode: int) -> list[_Step]:
    """Refuse a mode with other bits than a listing may have, where one counts."""
    steps: list[_Step] = []
    if flags is not None:
        steps = [_argument(flags), (_ANY_BIT, 0, "allow", creates)]
    others = 0xFFFFFFFF ^ _MODE_MASK
    return [*steps, _argument(mode), (_ANY_BIT, "refuse", "allow", others)]


def _without(place: int, bits: int) -> list[_Step]:
    return [_argument(place), (_ANY_BIT, "refuse", "allow", bits)]


def _one_of(place: int, values: Sequence[int]) -> list[_Step]:
    *first, last = values
    return [
        _argument(place),
        *((_EQUAL, "allow", 0, value) for value in first),
        (_EQUAL, "allow", "refuse", last),
    ]
