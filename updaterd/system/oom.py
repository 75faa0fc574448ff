# SPDX-License-Identifier: Apache-2.0
"""Did the kernel kill somebody here for want of memory? SIGKILL alone does not say.

The kernel counts such kills for each control group, whoever ran out: the group by its
`MemoryMax=`, or the machine.
"""

from collections.abc import Callable
from pathlib import Path

CURE = "free memory, or raise `MemoryMax=` of the unit (`journalctl -k` has more)"
_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def kills(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """Return how many processes of this control group were killed, ever; 0: unknown."""
    try:
        (group,) = (
            line[3:] for line in own.read_text().splitlines() if line[:3] == "0::"
        )
        events = (groups / group.lstrip("/") / "memory.events").read_text()
        counts = dict(line.split() for line in events.splitlines())
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return 0


class Watch:
    """Tells whether there was such a kill since it was made."""

    def __init__(self, count: Callable[[], int] = kills) -> None:
        self._count = count
        self._before = count()

    @property
    def has_killed(self) -> bool:
        """Tell whether there was one."""
        return self._count() > self._before
