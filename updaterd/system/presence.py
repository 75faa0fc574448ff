# SPDX-License-Identifier: Apache-2.0
"""Is the daemon there? Told to whoever asks, without getting in its way.

Its own user and root look at its lock. Nobody else may open that: who can may lock it,
and keep the daemon from starting. Others compare what it published of itself with the
processes there are: a number alone could be another process's by now.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from updaterd.system import locks

LOCK = "lock"
PUBLISHED = "status.json"


def is_running(runtime: Path, published: Mapping[str, Any] | None) -> bool:
    """Tell whether the daemon of that runtime directory runs.

    Args:
        runtime: the directory.
        published: what the daemon wrote there; None: nothing.
    """
    try:
        return locks.is_held(runtime / LOCK)
    except PermissionError:
        return _is_alive(runtime, published["daemon"]) if published else False


def _is_alive(runtime: Path, daemon: Mapping[str, Any]) -> bool:
    pid = daemon.get("pid")
    if not daemon.get("running") or not isinstance(pid, int) or pid < 1:
        return False
    try:
        owner = (runtime / PUBLISHED).stat().st_uid
        same = Path("/proc", str(pid)).stat().st_uid == owner
    except OSError:
        # who is shown no process of others (hidepid) believes what is published
        return not Path("/proc/1").exists()
    return same and ticks(str(pid)) == daemon.get("ticks")


def ticks(process: str = "self") -> int | None:
    """Return when a process started, in the kernel's ticks; None: it is not told."""
    try:
        with open(os.path.join("/proc", process, "stat"), "rb") as file:
            # proc_pid_stat(5), field 22; the name in parentheses may hold anything
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
