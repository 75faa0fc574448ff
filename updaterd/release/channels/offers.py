# SPDX-License-Identifier: Apache-2.0
"""What a channel offers, kept so that it always says what everybody else gets.

Pure rules over a pointer's offers. Each platform reads the offers made for it, the
highest `seq` first, up to the first that reaches every machine: that one is its
*base*, what lies above it are rollouts under way. What lies below a base is for
nobody and goes; while the base has a pace that is not over, the one below is for the
machines that wait for their turn, and stays.
"""

from collections.abc import Iterable
from dataclasses import replace

from updaterd.core.channel import EVERYBODY, MAX_OFFERS, ChannelPointer, Offer, Rollout
from updaterd.core.pace import Pace
from updaterd.core.rollout import salt_of
from updaterd.errors import RejectedError


def offer(  # noqa: PLR0913 - what a channel can be told of a release
    pointer: ChannelPointer,
    version: str,
    seq: int,
    *,
    permille: int = EVERYBODY,
    window_s: int = 0,
    urgency: str = "normal",
    platforms: Iterable[str] | None = None,
    tags: Iterable[str] = (),
    pace: Pace | None = None,
) -> ChannelPointer:
    """Return the pointer with this release offered to these platforms' machines.

    What lies under a partial rollout stays: the rest of the machines gets that. What
    is later than an offer to everybody is taken back: that is how a channel goes back.

    Raises:
        RejectedError: a part of the machines would go back, which no pointer can
            say; or there are too many rollouts under way.
    """
    rollout = Rollout(
        permille=permille,
        salt=salt_of(pointer.product, version, seq),
        window_s=window_s,
        tags=tuple(sorted(set(tags))),
    )
    top = Offer(
        version=version,
        seq=seq,
        rollout=rollout,
        urgency=urgency,
        platforms=None if platforms is None else tuple(sorted(platforms)),
        pace=pace,
    )
    others = []
    for standing in pointer.releases:
        if standing.version == version:
            continue
        reduced = standing if standing.seq < seq else without(standing, top.platforms)
        if reduced != standing and permille < EVERYBODY:
            raise RejectedError(
                f"{pointer.product}/{pointer.channel} offers {standing.version}, "
                f"which is later than {version}",
                means="only a part of the machines would step back, which is not "
                "supported: no other machine could tell what it should have",
                do="offer the older release to all (--permille 1000), or the later "
                "one to fewer (`updaterd release rollout`)",
                code="partial_step_back",
            )
        others += [reduced] if reduced is not None else []
    return replace(pointer, releases=needed([top, *others]))


def without(offer: Offer, platforms: tuple[str, ...] | None) -> Offer | None:
    """Return an offer that is not for these platforms; None: it is for nobody then."""
    if platforms is None or offer.platforms is None:
        return None
    names = tuple(name for name in offer.platforms if name not in platforms)
    return replace(offer, platforms=names) if names else None


def needed(offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Return the offers that a machine may read, highest `seq` first.

    A pace that is over must not be in them any more.

    Raises:
        RejectedError: there are more than a pointer can hold.
    """
    readable: list[Offer] = []
    closed: tuple[str, ...] | None = ()  # who has its base already; None: everybody
    for offer in sorted(offers, key=lambda offer: offer.seq, reverse=True):
        reduced = offer if closed == () else without(offer, closed)
        if offer.platforms is None and closed is not None:
            reduced = offer  # it does not say whom it is for: the first one counts
        if reduced is None:
            continue
        readable.append(reduced)
        is_for_all = reduced.rollout.permille >= EVERYBODY and reduced.pace is None
        if is_for_all and closed is not None:
            closed = (
                None if reduced.platforms is None else (*closed, *reduced.platforms)
            )
    paced = [o for o in readable[1:-1] if o.rollout.permille >= EVERYBODY and o.pace]
    for offer in paced[::-1][: max(0, len(readable) - MAX_OFFERS)]:
        readable.remove(offer)  # the newest and the base do for those who wait
    if len(readable) > MAX_OFFERS:
        raise RejectedError(
            f"{len(readable)} rollouts would be under way at once, {MAX_OFFERS} can be",
            means="nothing was published",
            do="finish or withdraw one: `updaterd release rollout`, `yank`",
            code="too_many_rollouts",
        )
    return tuple(readable)


def platforms_of(pointer: ChannelPointer) -> tuple[str, ...]:
    """Return the platforms that a channel has something for."""
    names = {name for offer in pointer.releases for name in offer.platforms or ()}
    return tuple(sorted(names))


def baseless(pointer: ChannelPointer, platforms: Iterable[str]) -> dict[str, int]:
    """Return the platforms where not everybody gets something.

    Returns:
        Each with the lowest `seq` it is offered; 0: it is offered nothing.
    """
    lowest: dict[str, int] = {}
    for name in sorted(set(platforms)):
        offers = [offer for offer in pointer.releases if offer.is_for(name)]
        if not offers or offers[-1].rollout.permille < EVERYBODY:
            lowest[name] = offers[-1].seq if offers else 0
    return lowest


def marked(pointer: ChannelPointer) -> ChannelPointer:
    """Return the pointer with the mark for readers that do not know platforms.

    It stands where they would misread the rest: take what is for others.
    """
    every = set(platforms_of(pointer))
    split = any(set(offer.platforms or every) != every for offer in pointer.releases)
    names = [name for name in pointer.must_understand if name != "platforms"]
    names += ["platforms"] if split else []
    return replace(pointer, must_understand=tuple(names))
