# SPDX-License-Identifier: Apache-2.0
"""Whatever a confined process left running is dead before its result counts.

Where its calls are filtered, it can start nothing. Where they are not (another
architecture, an old kernel), an orphan becomes a child of this process (a
"subreaper"), and is told from others' by a limit that only a confined process has, and
that no process can raise again.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from contextlib import contextmanager, suppress

from updaterd.artifact.worker.confine import kernel
from updaterd.errors import TransientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ROUNDS = 10_000


_changing = threading.Lock()
_guards: list[tuple[int, bool]] = []  # one for each thread at it: what was before it


@contextmanager
def guarded() -> Iterator[None]:
    """Adopt orphans, and let nobody of this user look into this process's memory.

    A confined process could otherwise write it through /proc, where the kernel has no
    Landlock.
    """
    with _changing:
        _guards.append((kernel.prctl(kernel.GET_DUMPABLE), kernel.is_subreaper()))
        kernel.prctl(kernel.SET_DUMPABLE, 0)
        kernel.prctl(kernel.SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        with _changing:
            before = _guards[0]
            _guards.pop()
            if not _guards:
                kernel.prctl(kernel.SET_CHILD_SUBREAPER, int(before[1]))
                if before[0] == 1:  # any other value is the kernel's
                    kernel.prctl(kernel.SET_DUMPABLE, 1)


def end(known: set[int]) -> None:
    """Kill every orphan of confined processes, until there is none.

    Args:
        known: confined processes that are at work for others, and end by themselves.

    Raises:
        TransientError: it starts processes faster than they can be ended.
    """
    for _ in range(_ROUNDS):
        orphans = [pid for pid in _children() if pid not in known and _is_caged(pid)]
        if not orphans:
            return
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
    raise TransientError(
        "the bundle opener left others running that cannot be ended",
        means="what it made is not used",
        do="report it, with the bundle; restart the machine",
        code="worker_left_others",
    )


def _children() -> list[int]:
    """Return the children of this process, of all its threads."""
    pids: list[int] = []
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                pids += map(int, file.read().split())
    except OSError:
        return _children_by_parent()
    return pids


def _children_by_parent() -> list[int]:
    """Return them on a kernel that does not list them (CONFIG_PROC_CHILDREN)."""
    pids = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[1]) == os.getpid():
                pids.append(int(name))
    return pids


def _is_caged(pid: int) -> bool:
    try:
        return resource.prlimit(pid, resource.RLIMIT_NPROC) == (0, 0)
    except OSError:  # it just ended
        return False
