# SPDX-License-Identifier: Apache-2.0
"""Steering a channel: what it is to offer, judged before it is signed.

Every way to a new pointer goes through `settled`: a channel always says what
everybody else gets, and only what it offered before, for each of its platforms, and
never what its machines would refuse.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from updaterd.core.channel import EVERYBODY, ChannelPointer, Offer
from updaterd.core.plan import Plan
from updaterd.errors import BrokenError, RejectedError
from updaterd.release.channels import bases, offers, stones
from updaterd.release.repository.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants a channel to offer.

    Attributes:
        platforms: whose machines it is for; None: all that it was made for.
        without: platforms of the channel that may be left behind: their machines
            keep what they have.
        back: the channel may go back to an older release.
        tags: machines that get it besides those of `permille`.
        plan: how it is rolled out, step by step; None: as the rest says.
    """

    version: str
    permille: int = EVERYBODY
    window_s: int = 0
    urgency: str = "normal"
    platforms: Collection[str] | None = None
    without: Collection[str] = ()
    back: bool = False
    tags: tuple[str, ...] = ()
    plan: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """What a channel is to say, and what its publisher should be told.

    Attributes:
        before: what it says now.
        pointer: what it is to say.
        notes: sentences.
    """

    before: ChannelPointer
    pointer: ChannelPointer
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Tell whether anything changes."""
        return self.pointer != self.before


def newest(pointer: ChannelPointer) -> Offer:
    """Return what a channel offers first.

    Raises:
        BrokenError: nothing.
    """
    if not pointer.releases:
        raise BrokenError(
            f"{pointer.product}/{pointer.channel} offers nothing",
            do="publish a release there first",
            code="empty_channel",
        )
    return pointer.releases[0]


def spelled_out(catalog: Catalog, channel: str) -> ChannelPointer:
    """Return a channel's pointer where every offer says whom it is for.

    Those made before offers said so are for all that the release was made for.
    """
    pointer = catalog.pointer(channel)
    _, made_for = catalog.releases()
    spelled = [
        replace(
            offer,
            platforms=offer.platforms or made_for.get(offer.version),
            pace=catalog.pace(offer.version, offer.platforms),
        )
        for offer in pointer.releases
    ]
    if all(offer.platforms for offer in spelled):
        return replace(pointer, releases=offers.needed(spelled))
    return replace(pointer, releases=tuple(spelled))


def put(catalog: Catalog, channel: str, wish: Wish) -> Steered:
    """Return a channel with a release on offer; what stands already is left alone.

    Raises:
        BrokenError: there is no such release or channel.
        RejectedError: its machines would refuse it, some would be left without, or
            it takes machines back unasked.
        unreachable: some of them could never get to it.
    """
    listed = catalog.require(wish.version)
    before, pointer = catalog.pointer(channel), spelled_out(catalog, channel)
    made_for = set(catalog.releases()[1][wish.version])
    later = {
        name
        for offer in pointer.releases
        if offer.seq > listed.seq
        for name in offer.platforms or ()
    }
    platforms = made_for if wish.platforms is None else made_for & set(wish.platforms)
    if not wish.back:
        _check_not_back(catalog, pointer, wish, platforms & later or made_for <= later)
        platforms -= later
    check_platforms(pointer, wish.version, platforms | later, wish.without)
    standing = next(
        (offer for offer in pointer.releases if offer.version == wish.version), None
    )
    if standing is not None and not (wish.back and platforms & later):
        return _still_paced(
            catalog, wish, _left_standing(catalog, before, pointer, standing, platforms)
        )
    check_floor(catalog, channel, wish.version, listed.seq)
    changed = offers.offer(
        pointer,
        wish.version,
        listed.seq,
        permille=wish.permille,
        window_s=wish.window_s,
        urgency=wish.urgency,
        platforms=platforms,
        tags=wish.tags,
        pace=catalog.pace(wish.version, platforms),
    )
    plan = wish.plan and replace(wish.plan, version=wish.version)
    changed = replace(_unreached(before, changed), plan=plan)
    steered = settled(catalog, before, changed)
    steered = _still_paced(catalog, wish, steered)
    if not wish.back:
        for gap in stones.laid(catalog, steered.pointer)[1]:
            if gap.version == wish.version:
                raise stones.unreachable(before, gap)
    return steered


def _still_paced(catalog: Catalog, wish: Wish, steered: Steered) -> Steered:
    """Say where the pace of what is offered first is over, or is not lifted."""
    top = newest(steered.pointer)
    note = ""
    if top.pace is None:
        ends = [
            entry.pace.ends_at
            for entry in catalog.listed()
            if entry.version == top.version and entry.pace
        ]
        if ends and steered.changed:
            note = (
                f"the pace of {top.version} has been over since "
                f"{datetime.fromtimestamp(min(ends), UTC):%Y-%m-%d %H:%M} UTC: the "
                "channel's rollout alone says whom it reaches"
            )
    elif wish.urgency == "critical":
        note = (
            f"{top.version} keeps its pace ({top.pace}): the release key signed it. To "
            "be rid of it, push the same tree under a new version, with --critical"
        )
    return replace(steered, notes=(*steered.notes, note)) if note else steered


def _left_standing(
    catalog: Catalog,
    before: ChannelPointer,
    pointer: ChannelPointer,
    standing: Offer,
    platforms: Collection[str],
) -> Steered:
    """Return a channel that offers the release already, to more platforms at most."""
    every = tuple(sorted({*(standing.platforms or ()), *platforms}))
    reach = standing.rollout.permille
    note = (
        f"{standing.version} is on offer in {pointer.channel} already, to {reach} of "
        "1000 machines, and stays so: `updaterd release rollout` changes that"
    )
    if every == standing.platforms:
        return Steered(before=before, pointer=before, notes=(note,))
    wider = replace(standing, platforms=every)
    below = [offer for offer in pointer.releases if offer is not standing]
    changed = replace(pointer, releases=offers.needed([wider, *below]))
    steered = settled(catalog, before, changed)
    return replace(steered, notes=(note, *steered.notes))


def _unreached(before: ChannelPointer, changed: ChannelPointer) -> ChannelPointer:
    """Return a channel whose halted release reaches nobody else any more.

    Machines where it runs keep it: it is still offered.
    """
    halted = before.plan.version if before.plan and before.halted else ""
    releases = (
        replace(offer, rollout=replace(offer.rollout, permille=0, tags=()))
        if offer.version == halted
        else offer
        for offer in changed.releases
    )
    return replace(changed, releases=tuple(releases))


def _guarded(before: ChannelPointer, pointer: ChannelPointer) -> ChannelPointer:
    """Return a channel with a plan for what it offers first only.

    Another release than the one that was halted ends the pause: that was about the
    other.
    """
    first = pointer.releases[0].version if pointer.releases else ""
    plan = pointer.plan
    if plan is not None and plan.version != first:
        plan = None
    is_over = before.plan and before.halted and before.plan.version != first
    if is_over:
        pointer = replace(pointer, paused=False, reason="")
    return replace(pointer, plan=plan)


def settled(
    catalog: Catalog, before: ChannelPointer, changed: ChannelPointer
) -> Steered:
    """Return a channel that says what everybody else gets, where anything will do.

    Raises:
        RejectedError: everybody had it and nothing that was offered before is left:
            machines would keep what is withdrawn.
    """
    had = set(offers.platforms_of(before)) | set(offers.platforms_of(changed))
    complete, notes = list(changed.releases), []
    for platform, lowest in offers.baseless(changed, had).items():
        base = bases.base_of(
            catalog, changed.channel, platform, lowest or bases.above(before)
        )
        if base is not None:
            complete.append(base)
            notes.append(
                f"machines for {platform} that the rollout does not reach get "
                f"{base.version}, as this channel offered it before"
            )
            continue
        if bases.had_it_all(catalog, changed, platform):
            raise RejectedError(
                f"{changed.product}/{changed.channel} offered nothing before "
                f"{changed.releases[0].version} for {platform} that is left",
                means="the machines that it does not reach any more would keep it and "
                "say that they are current",
                do="push a release that works, `updaterd release pause`, or `yank`",
                code="nothing_beneath",
            )
        if lowest:
            notes.append(
                f"nothing else was ever offered here for {platform}: machines that "
                "the rollout does not reach get nothing"
            )
    whole = replace(changed, releases=offers.needed(bases.merged(complete)))
    return laid(catalog, before, whole, notes)


def laid(
    catalog: Catalog, before: ChannelPointer, whole: ChannelPointer, notes: list[str]
) -> Steered:
    """Return a channel with its mark and its stepping stones."""
    whole = _guarded(before, whole)
    pointer, gaps = stones.laid(catalog, offers.marked(whole))
    return Steered(before=before, pointer=pointer, notes=(*notes, *map(str, gaps)))


def _check_not_back(
    catalog: Catalog, pointer: ChannelPointer, wish: Wish, later: object
) -> None:
    """Refuse to take machines back, or to bring back what was taken back, unasked.

    Raises:
        RejectedError: that is what it would do.
        not_newest: the former.
    """
    where = f"{pointer.product}/{pointer.channel}"
    if later:
        raise not_newest(pointer, wish.version)
    offered = any(offer.version == wish.version for offer in pointer.releases)
    if not offered and catalog.offered(pointer.channel).includes(wish.version):
        raise RejectedError(
            f"{where} offered {wish.version} before, and does not any more",
            means="somebody withdrew it from this channel; pushing it again must not "
            "undo that",
            do="to offer it again: `updaterd release publish`",
            code="taken_back",
        )


def not_newest(pointer: ChannelPointer, version: str) -> RejectedError:
    """Return the refusal to take machines back unasked."""
    return RejectedError(
        f"{pointer.product} {version} exists, and {pointer.channel} already offers a "
        f"later release (seq {pointer.releases[0].seq})",
        means="offering it again would take machines back",
        do="to make machines step back to it: `updaterd release publish`",
        code="not_newest",
    )


def check_platforms(
    pointer: ChannelPointer,
    version: str,
    made_for: Collection[str],
    without: Collection[str] = (),
) -> None:
    """Refuse a release that some of the channel's machines could not install.

    Raises:
        RejectedError: it lacks a platform that the channel has.
    """
    has = offers.platforms_of(pointer)
    lacking = [name for name in has if name not in made_for and name not in without]
    if lacking:
        names = ", ".join(lacking)
        raise RejectedError(
            f"{pointer.product} {version} is not there for {names}, which "
            f"{pointer.channel} has machines for",
            means="nothing was published",
            do="push all platforms at once (--tree PLATFORM=DIR for each), add what "
            "is missing first (`updaterd release add`), or leave those machines with "
            f"what they have: {' '.join(f'--without {name}' for name in lacking)}",
            code="platform_missing",
        )


def check_floor(catalog: Catalog, channel: str, version: str, seq: int) -> None:
    """Refuse a release that machines of the channel would not go back to.

    Raises:
        RejectedError: it is below the floor.
    """
    floor = catalog.floor(channel)
    if seq < floor:
        raise RejectedError(
            f"{version} (seq {seq}) is below the floor {floor} that a release offered "
            f"in {channel} has set",
            means="the machines that installed it would refuse to go back",
            do="push what is to run there as a new release",
            code="below_floor",
        )


def promotion(catalog: Catalog, source: str, wish: Wish | None = None) -> Wish:
    """Return the wish for what another channel offers first.

    Raises:
        BrokenError: it offers nothing.
        RejectedError: it is paused: somebody stopped what it offers.
    """
    pointer = spelled_out(catalog, source)
    top = newest(pointer)
    if pointer.paused:
        raise RejectedError(
            f"{pointer.product}/{source} is paused",
            means=f"somebody stopped {top.version} there; nothing was published",
            do="`updaterd release resume` it first, or name the release: "
            f"`updaterd release publish --version {top.version}`",
            code="source_paused",
        )
    wish = wish or Wish(version=top.version)
    urgency = "critical" if "critical" in {wish.urgency, top.urgency} else "normal"
    return replace(wish, version=top.version, platforms=top.platforms, urgency=urgency)
