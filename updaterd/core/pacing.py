# SPDX-License-Identifier: Apache-2.0
"""When a release's pace lets this machine install it, as far as it is known here."""

from datetime import UTC, datetime

from updaterd.core import pace as paces
from updaterd.core.channel import Offer
from updaterd.core.decision import Facts, Wait
from updaterd.core.pace import Pace
from updaterd.core.rollout import cohort, salt_of


def pace_of(offer: Offer, facts: Facts) -> Pace | None:
    """Return the pace of a release: its manifest's, as soon as that was read."""
    return facts.paces.get(offer.version, offer.pace)


def turn_at(
    pace: Pace | None, offer: Offer, product: str, facts: Facts
) -> float | None:
    """Return when a release's pace lets this machine install it, in Unix seconds.

    None: it does not hold it. A person at the machine said `--now`, or named the
    release; or the whole tree is here, so that its turn has come before.
    """
    if pace is None or facts.forced or offer.version in facts.on_disk:
        return None
    if facts.named == offer.version:
        return None
    seen_at = facts.now if facts.first_seen_at is None else facts.first_seen_at
    wait_s = paces.after_s(pace, _cohort(offer, product, facts), facts.tags)
    return paces.comes_at(pace, wait_s, now=facts.now, seen_at=seen_at)


def _cohort(offer: Offer, product: str, facts: Facts) -> int:
    """Return the machine's cohort; no channel's word on the draw counts here."""
    return cohort(salt_of(product, offer.version, offer.seq), facts.machine_id)


def waiting(offer: Offer, product: str, facts: Facts) -> Wait | None:
    """Return that a release's pace keeps this machine waiting, if it does."""
    pace = pace_of(offer, facts)
    turn = turn_at(pace, offer, product, facts)
    if pace is None or turn is None or facts.now >= turn:
        return None
    when = datetime.fromtimestamp(turn, UTC)
    return Wait(
        code="paced",
        reason=f"{offer.version} comes to this machine at {when:%Y-%m-%d %H:%M} UTC: "
        f"its publisher signed a pace ({pace}), and the machine's cohort is "
        f"{_cohort(offer, product, facts)}",
        offer=offer,
        until=turn,
    )
