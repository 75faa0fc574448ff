# SPDX-License-Identifier: Apache-2.0
"""What a worker gives up before it touches a bundle: resources; `confine` has the rest.

Best effort where the kernel or the user's rights do not allow it: the checks in the
code do not rest on any of this.
"""

import ctypes
import os
import resource

_DEATH_SIGNAL = 1
_SIGKILL = 9  # importing `signal` costs more than all of this module
_ADDRESS_SPACE = 512 * 2**20
_FILES = 512  # chains of directories, each of tree.MAX_DEPTH; files; what Python has


def give_up(*, memory: int, cpu_s: int, file_bytes: int) -> None:
    """Bound what this process may take, and leave its standard error.

    Args:
        memory: bytes of private memory.
        cpu_s: CPU seconds.
        file_bytes: longest file it may write.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_DEATH_SIGNAL, _SIGKILL, 0, 0, 0)
    _limit(resource.RLIMIT_DATA, memory)
    _limit(resource.RLIMIT_AS, max(_ADDRESS_SPACE, 2 * memory))
    # At the soft one comes SIGXCPU, which says why; at the hard one the kernel kills.
    _limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 5)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, _FILES)
    _limit(resource.RLIMIT_CORE, 0)
    # No other process; and by this mark the parent knows one that began nevertheless.
    _limit(resource.RLIMIT_NPROC, 0)
    os.umask(0o022)
    nowhere = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, 2)  # its words are nobody's from here on
    os.close(nowhere)


def _limit(which: int, value: int, last: int = 0) -> None:
    last = max(value, last)
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        last = min(last, hard)
    resource.setrlimit(which, (min(value, last), last))
