# SPDX-License-Identifier: Apache-2.0
"""When a machine's turn comes: windows, holds and the longest wait, each spread.

Theory. What keeps a fleet waiting ends for all of it at one instant: a maintenance
window opens, a hold reaches its date, the longest wait is over. So a machine's place in
the spread that the publisher signed (`Rollout.window_s`) counts from whatever kept it
last, not only from the moment it saw the release:

    seen, or the end of a hold, or the
    step of the release's pace            + share of the spread
    the opening of a window               + share of the spread, or of the window
                                            when that is shorter
    the first pending update + deferral   + share of the spread

The last one goes before windows, and before the place of a release that came later: a
publisher who releases every day must not keep a machine waiting for ever.
"""

from updaterd.core.dataclass import dataclass
from updaterd.core.rollout import Rollout, splay_s
from updaterd.core.windows import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a machine has waited for. Times are Unix seconds.

    Attributes:
        seen_at: when it first saw the release.
        pending_since: since when it has had an update to install, this or an older.
        paced_until: when the step of its pace came; 0 without one.
        hold_ended_at: when a hold reached its date; 0 for none that has.
        max_deferral_s: how long windows and spreads may keep it.
        window: the open maintenance window, or the next; None: none is wanted.
    """

    seen_at: float
    pending_since: float
    hold_ended_at: float
    max_deferral_s: float
    window: Span | None
    paced_until: float = 0.0


def turn_at(rollout: Rollout, machine_id: str, waiting: Waiting) -> float:
    """Return when the machine's turn comes, in Unix seconds."""
    share = splay_s(rollout, machine_id)
    freed_at = max(waiting.seen_at, waiting.hold_ended_at, waiting.paced_until)
    turn = freed_at + share
    if waiting.window is not None:
        opens_at, closes_at = waiting.window
        if freed_at < opens_at:
            fits = min(1.0, (closes_at - opens_at) / max(1, rollout.window_s))
            turn = max(turn, opens_at + share * fits)
    overdue_at = waiting.pending_since + waiting.max_deferral_s
    return min(turn, max(overdue_at, waiting.hold_ended_at) + share)
