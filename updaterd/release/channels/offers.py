# SPDX-License-Identifier: Apache-2.0
"""What a channel offers, kept so that it always says what everybody else gets.

Pure rules over a pointer's offers. Each platform reads the offers made for it, the
highest `seq` first, up to the first that reaches every machine: that one is its
*base*, what lies above it are rollouts under way. What lies below a base is for
nobody and goes.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from updaterd.core.channel import EVERYBODY, MAX_OFFERS, ChannelPointer, Offer, Rollout
from updaterd.errors import RejectedError


def salt_of(product: str, version: str, seq: int) -> str:
    """Return the draw of a rollout: another for each release, the same on a re-run."""
    return hashlib.sha256(f"{product}/{version}/{seq}".encode()).hexdigest()[:16]


def offer(  # noqa: PLR0913 - what a channel can be told of a release
    pointer: ChannelPointer,
    version: str,
    seq: int,
    *,
    permille: int = EVERYBODY,
    window_s: int = 0,
    urgency: str = "normal",
    platforms: Iterable[str] | None = None,
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
    )
    top = Offer(
        version=version,
        seq=seq,
        rollout=rollout,
        urgency=urgency,
        platforms=None if platforms is None else tuple(sorted(platforms)),
    )
    others = []
    for each in pointer.releases:
        if each.version == version:
            continue
        left = each if each.seq < seq else without(each, top.platforms)
        if left != each and permille < EVERYBODY:
            raise RejectedError(
                f"{pointer.product}/{pointer.channel} offers {each.version}, which is "
                f"later than {version}",
                means="a machine that has it would not know whether to go back: a "
                "part of the machines cannot be taken back",
                do="offer the older release to all (--permille 1000), or the later "
                "one to fewer (`updaterd release rollout`)",
                code="partial_step_back",
            )
        others += [left] if left is not None else []
    return replace(pointer, releases=needed([top, *others]))


def without(each: Offer, platforms: tuple[str, ...] | None) -> Offer | None:
    """Return an offer that is not for these platforms; None: it is for nobody then."""
    if platforms is None or each.platforms is None:
        return None
    left = tuple(name for name in each.platforms if name not in platforms)
    return replace(each, platforms=left) if left else None


def needed(offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Return the offers that a machine may read, highest `seq` first.

    Raises:
        RejectedError: there are more than a pointer can hold.
    """
    found: list[Offer] = []
    closed: tuple[str, ...] | None = ()  # who has its base already; None: everybody
    for each in sorted(offers, key=lambda one: one.seq, reverse=True):
        left = each if closed == () else without(each, closed)
        if each.platforms is None and closed is not None:
            left = each  # it does not say whom it is for: the first one counts
        if left is None:
            continue
        found.append(left)
        if left.rollout.permille >= EVERYBODY and closed is not None:
            closed = None if left.platforms is None else (*closed, *left.platforms)
    if len(found) > MAX_OFFERS:
        raise RejectedError(
            f"{len(found)} rollouts would be under way at once, {MAX_OFFERS} can be",
            means="nothing was published",
            do="finish or withdraw one: `updaterd release rollout`, `yank`",
            code="too_many_rollouts",
        )
    return tuple(found)


def platforms_of(pointer: ChannelPointer) -> tuple[str, ...]:
    """Return the platforms that a channel has something for."""
    names = {name for each in pointer.releases for name in each.platforms or ()}
    return tuple(sorted(names))


def baseless(pointer: ChannelPointer, platforms: Iterable[str]) -> dict[str, int]:
    """Return the platforms where not everybody gets something.

    Returns:
        Each with the lowest `seq` it is offered; 0: it is offered nothing.
    """
    found: dict[str, int] = {}
    for name in sorted(set(platforms)):
        ours = [each for each in pointer.releases if each.is_for(name)]
        if not ours or ours[-1].rollout.permille < EVERYBODY:
            found[name] = ours[-1].seq if ours else 0
    return found


def marked(pointer: ChannelPointer) -> ChannelPointer:
    """Return the pointer with the mark for readers that do not know platforms.

    It stands where they would misread the rest: take what is for others.
    """
    every = set(platforms_of(pointer))
    split = any(set(each.platforms or every) != every for each in pointer.releases)
    names = [name for name in pointer.must_understand if name != "platforms"]
    names += ["platforms"] if split else []
    return replace(pointer, must_understand=tuple(names))
