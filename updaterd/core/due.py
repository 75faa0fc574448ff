# SPDX-License-Identifier: Apache-2.0
"""When a product is due, and what for: events, retries, the safety poll, the boot.

Pure: the daemon hands in what the journal and the inbox say. Times are Unix seconds.
A clock that was set back can park nothing for longer than the safety poll's period:
what is remembered is brought back within reach (`settled`) at every turn, and kept
so. Were it only read as if, it would move on with the clock and never be due.
"""

from dataclasses import field, replace

from updaterd.core.dataclass import dataclass
from updaterd.core.throttle import Throttle

LONGEST_POLL = 1.1
"""The safety poll comes after 0.9 to 1.1 of its period: a fleet must not march."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Events that wait for a product, as one."""

    received_at: float
    spread_s: float = 0.0
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Agenda:
    """What the daemon remembers about one product between two workers.

    Attributes:
        poll_at: when the safety poll is due; 0 before the first worker since start.
        share: this machine's place in an event's spread, drawn in [0, 1).
        throttle: how soon a worker may follow another.
    """

    poll_at: float = 0.0
    share: float = 0.0
    throttle: Throttle = field(default_factory=Throttle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """When, and what for: `trigger` is `boot`, `event` or `poll`."""

    at: float
    trigger: str


def settled(agenda: Agenda, *, now: float, poll_s: float) -> Agenda:
    """Return the agenda without times that only a clock that was set back explains.

    Args:
        agenda: what is remembered.
        now: Unix seconds.
        poll_s: period of the safety poll.
    """
    return replace(
        agenda,
        poll_at=min(agenda.poll_at, now + poll_s * LONGEST_POLL),
        throttle=agenda.throttle.settled(now),
    )


def due(
    agenda: Agenda,
    *,
    now: float,
    retry_at: float | None,
    waiting: Waiting | None,
    poll_s: float,
) -> Due:
    """Return when a product is due next.

    Args:
        agenda: what is remembered.
        now: Unix seconds.
        retry_at: when the journal wants another attempt; None: no plan.
        waiting: events that wait, if any.
        poll_s: period of the safety poll; nothing waits longer.
    """
    paced = now + agenda.throttle.wait_s(now)
    if agenda.poll_at == 0.0:
        return Due(at=0.0, trigger="boot")
    # Paced too: a feed that comes and goes asks for a look each time it is back.
    poll_at = min(agenda.poll_at, now + poll_s)
    candidates = [Due(at=max(paced, poll_at), trigger="poll")]
    if retry_at is not None:
        # Paced too: a plan in the past must not become a busy loop.
        candidates.append(
            Due(at=max(paced, min(retry_at, now + poll_s)), trigger="poll")
        )
    if waiting is not None:
        # A feed may spread its fleet, not silence it: urgent ones go at once, and
        # nobody waits longer than without the event.
        spread = 0.0 if waiting.urgent else min(waiting.spread_s, poll_s)
        start = min(waiting.received_at, now) + agenda.share * spread
        candidates.append(Due(at=max(paced, start), trigger="event"))
    return min(candidates, key=lambda candidate: candidate.at)
