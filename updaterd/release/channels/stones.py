# SPDX-License-Identifier: Apache-2.0
"""Which stepping stones a channel names: the way for machines that are further back.

Only releases that the channel once offered to everybody, or names already, are used:
that a release exists says nothing about whether this channel's machines should run it.
"""

from dataclasses import dataclass, replace

from updaterd.core.channel import EVERYBODY, ChannelPointer
from updaterd.core.frozen import replaced
from updaterd.core.stones import MAX_STONES, Stone, before
from updaterd.errors import RejectedError
from updaterd.release.channels.offers import platforms_of
from updaterd.release.repository.catalog import Catalog


@dataclass(frozen=True, slots=True)
class Gap:
    """Machines that no way leads to a release: those below a seq, of one platform."""

    version: str
    platform: str
    below: int

    def __str__(self) -> str:
        """Return what a publisher should know."""
        return (
            f"machines for {self.platform} below seq {self.below} cannot get to "
            f"{self.version}: the channel has no release left that leads there"
        )


def laid(
    catalog: Catalog, pointer: ChannelPointer
) -> tuple[ChannelPointer, tuple[Gap, ...]]:
    """Return a channel with the stones that its offers need, and what these lack.

    Each offer repeats what its manifest says of whom it is for.
    """
    lowest = {
        (entry.version, entry.platform): entry.from_seq_min
        for entry in catalog.listed()
    }
    releases = tuple(
        replace(
            offer,
            from_seq_min=max(
                (
                    lowest.get((offer.version, name), 0)
                    for name in offer.platforms or platforms_of(pointer)
                ),
                default=0,
            ),
            pace=catalog.pace(offer.version, offer.platforms),
        )
        for offer in pointer.releases
    )
    pointer = replace(pointer, releases=releases)
    if not any(offer.from_seq_min for offer in releases):
        return replace(pointer, stones=()), ()
    used: dict[str, Stone] = {}
    gaps: list[Gap] = []
    for platform in platforms_of(pointer):
        usable, installed = _known(catalog, pointer, platform)
        for offer in releases:
            if not offer.is_for(platform):
                continue
            steps, missing = _back(offer.seq, offer.from_seq_min, usable)
            for stone in steps:
                known = used.get(stone.version, stone)
                names = tuple(sorted({platform, *known.platforms}))
                used[stone.version] = replaced(stone, platforms=names)
            if any(seq < missing for seq in installed):
                gaps.append(Gap(offer.version, platform, missing))
    stones = sorted(used.values(), key=lambda stone: stone.seq, reverse=True)
    return replace(pointer, stones=tuple(stones[:MAX_STONES])), tuple(gaps)


def _back(seq: int, needed: int, usable: tuple[Stone, ...]) -> tuple[list[Stone], int]:
    """Return the stones of a release, last first, and below which seq none leads."""
    steps: list[Stone] = []
    while needed:
        stone = before(seq, needed, usable)
        if stone is None:
            break
        steps.append(stone)
        seq, needed = stone.seq, stone.from_seq_min
    return steps, needed


def _known(
    catalog: Catalog, pointer: ChannelPointer, platform: str
) -> tuple[tuple[Stone, ...], list[int]]:
    """Return what may be a stone on a platform, and which seqs machines may have."""
    history = catalog.offered(pointer.channel)
    named = {stone.version for stone in pointer.stones}
    named |= {
        offer.version
        for offer in pointer.releases
        if offer.rollout.permille >= EVERYBODY
    }
    usable, installed = [], []
    for entry in catalog.listed():
        if entry.platform != platform:
            continue
        if entry.version in named or history.includes(entry.version):
            installed.append(entry.seq)
        was_all = platform in history.releases.get(entry.version, ())
        if entry.seq >= pointer.floor_seq and (entry.version in named or was_all):
            names = (platform,)
            usable.append(Stone(entry.version, entry.seq, entry.from_seq_min, names))
    return tuple(usable), installed


def check(  # noqa: PLR0913 # a release that is not listed yet
    catalog: Catalog,
    channel: str,
    version: str,
    *,
    seq: int,
    from_seq_min: int,
    platform: str,
) -> None:
    """Refuse a release that some machines of the channel could never get to.

    Raises:
        RejectedError: the channel has no stepping stone for them.
        unreachable: that refusal.
    """
    pointer = catalog.pointer(channel)
    usable, installed = _known(catalog, pointer, platform)
    _, missing = _back(seq, from_seq_min, usable)
    stuck = [have for have in installed if have < missing]
    if stuck:
        raise unreachable(pointer, Gap(version, platform, missing))


def unreachable(pointer: ChannelPointer, gap: Gap) -> RejectedError:
    """Return the refusal to leave machines behind that no way leads to a release."""
    return RejectedError(
        f"{pointer.product}/{pointer.channel}: {gap}",
        means="nothing was published: they would stay where they are for ever",
        do=f"offer them a release from seq {gap.below} on first, to everybody, which "
        "they can install; or give a lower --from-seq-min",
        code="no_stepping_stone",
    )
