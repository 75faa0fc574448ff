# SPDX-License-Identifier: Apache-2.0
"""Code that has taken over the bundle opener, in its real cage.

A payload is Python: `apply(job, fd, progress)` runs where a full bundle would be
unpacked, as if a hostile one had made the parser do it. Layers that a machine may lack
are taken from it as a kernel does: a filter around the process answers as an old one.
"""

import json
import struct
import sys

from updaterd.artifact.worker import parent
from updaterd.artifact.worker.confine.seccomp import ARCHITECTURES

LAYERS = ("landlock", "seccomp", "namespaces")
_PRCTL = {"x86_64": 157, "aarch64": 167}
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_LANDLOCK_CREATE, _ENOSYS, _EINVAL, _EPERM = 444, 38, 22, 1

LAUNCH = """
import ctypes, json, os, struct, sys
code = bytes.fromhex(sys.argv[1])
libc = ctypes.CDLL(None)
kept = ctypes.create_string_buffer(code, len(code))
program = ctypes.create_string_buffer(
    struct.pack("@HP", len(code) // 8, ctypes.addressof(kept)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert not code or libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""

PRELUDE = """
import ctypes, errno, fcntl, os, resource, signal, socket, stat, struct, sys, time
from updaterd.artifact.job import Made
from updaterd.errors import RejectedError, TransientError
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
"""


def refusing(machine: str, layers: tuple[str, ...]) -> bytes:
    """Return a filter under which a kernel seems to lack these layers."""
    load, equal, answer = 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 4), (equal, 1, 0, ARCHITECTURES[machine]),
             (answer, 0, 0, 0x7FFF0000), (load, 0, 0, 0)]  # fmt: skip
    if "landlock" in layers:
        steps += [(equal, 0, 1, _LANDLOCK_CREATE), (answer, 0, 0, 0x50000 | _ENOSYS)]
    if "namespaces" in layers:
        steps += [(equal, 0, 1, _UNSHARE[machine]), (answer, 0, 0, 0x50000 | _EPERM)]
    if "seccomp" in layers:
        steps += [(equal, 0, 3, _PRCTL[machine]), (load, 0, 0, 16), (equal, 0, 1, 22),
                  (answer, 0, 0, 0x50000 | _EINVAL)]  # fmt: skip
    steps.append((answer, 0, 0, 0x7FFF0000))
    return b"".join(struct.pack("@HBBI", *step) for step in steps)


def launched(argv: list[str], machine: str, without: tuple[str, ...]) -> list[str]:
    """Return how a program is started where a kernel lacks some layers."""
    code = refusing(machine, without).hex() if without else ""
    return [sys.executable, "-I", "-S", "-c", LAUNCH, code, *argv]


def command(payload: str, machine: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """Return how the bundle opener is started, with a payload in it.

    Args:
        payload: defines `apply`.
        machine: as `os.uname` names it.
        without: layers that the kernel lacks.
    """
    argv = parent.command()
    place = argv.index("-c") + 1
    start, leave = argv[place].rsplit("; ", 1)
    source = json.dumps(PRELUDE + payload)
    module = "import updaterd.artifact.unpack as unpack; space = {}"
    put = f"exec({source}, space); unpack.apply = space['apply']"
    argv[place] = f"{start}; {module}; {put}; {leave}"
    return launched(argv, machine, without) if without else argv
