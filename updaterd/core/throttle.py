# SPDX-License-Identifier: Apache-2.0
"""How often events may start a worker: at once when it is quiet, slower in a flood.

An event is only a hint, and anybody who can spoof one can spoof a million. The
first starts a worker at once; while workers find nothing to do, the pause before
the next grows, up to a minute. A worker that changed something resets it.
"""

from dataclasses import replace

from updaterd.core.dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """When the next worker may start. Times are Unix seconds, pauses seconds."""

    base_s: float = 1.0
    cap_s: float = 60.0
    idle_runs: int = 0
    not_before: float = 0.0

    def after(self, *, now: float, useful: bool) -> "Throttle":
        """Return the throttle after a worker ended; `useful`: it changed something."""
        runs = 0 if useful else self.idle_runs + 1
        pause = min(self.cap_s, self.base_s * 2.0 ** min(runs - 1, 30)) if runs else 0.0
        # Quiet for ten times the pause: the flood is over.
        quiet = now - self.not_before > 10 * self.cap_s
        if quiet and not useful:
            runs, pause = 1, self.base_s
        return replace(self, idle_runs=runs, not_before=now + pause)

    def settled(self, now: float) -> "Throttle":
        """Return the throttle with a pause that ends within reach of this clock."""
        return replace(self, not_before=min(self.not_before, now + self.cap_s))

    def wait_s(self, now: float) -> float:
        """Return how long events must still wait; a clock set back cannot park it."""
        return min(max(0.0, self.not_before - now), self.cap_s)
