# SPDX-License-Identifier: Apache-2.0
"""How a release ended on machines, gathered into what a rollout is judged by.

Pure: whoever watches and whoever only shows it come to the same.
"""

from collections.abc import Callable, Iterable

from updaterd.core import pace
from updaterd.core.channel import ChannelPointer, Offer
from updaterd.core.dataclass import dataclass
from updaterd.core.watching import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Machines by how one release ended there last.

    Attributes:
        well: it runs.
        failed: it does not, by its own fault.
        other: it does not, by another's.
    """

    well: int = 0
    failed: int = 0
    other: int = 0


Find = Callable[[str], Ends]


def ends_of(rows: Iterable[tuple[str, str, int]]) -> Ends:
    """Return a release's ends.

    Args:
        rows: outcome, whose fault it was, and how many machines.
    """
    well, failed, other = 0, 0, 0
    for outcome, fault, machines in rows:
        if outcome == "installed":
            well += machines
        elif fault == "release":
            failed += machines
        else:
            other += machines
    return Ends(well=well, failed=failed, other=other)


def beneath(pointer: ChannelPointer) -> Offer | None:
    """Return the release that the others have; None: there is none.

    One that was halted is offered to nobody any more. The next one is not measured by
    how that failed, nor is its reach by the few machines that had it.
    """
    for offer in pointer.releases[1:]:
        if offer.rollout.permille > 0 or offer.rollout.tags:
            return offer
    return None


def gathered(
    pointer: ChannelPointer, ends: Find, *, machines: int, now: float
) -> Evidence:
    """Return the evidence about a channel's newest release.

    Args:
        pointer: the channel; it offers something.
        ends: returns how a release ended, by its version.
        machines: those that follow the channel, as far as they have reported.
        now: Unix seconds: the release's own pace may keep machines waiting.
    """
    top, base = pointer.releases[0], beneath(pointer)
    over = ends(top.version)
    under = ends(base.version) if base is not None else Ends()
    permille = top.rollout.permille
    if top.pace is not None:
        permille = min(permille, pace.reached(top.pace, now))
    # machines are known once they have reported: of a fleet that has only begun to,
    # nobody knows how many a step reaches
    is_known = 2 * (under.well + under.failed) >= machines > 0
    if base is None or not _is_for_all(pointer, base):
        is_known = False
    return Evidence(
        well=over.well,
        failed=over.failed,
        other=over.other,
        reached=machines * permille // 1000 if is_known else 0,
        base_version=base.version if base is not None else "",
        base_well=under.well,
        base_failed=under.failed,
    )


def _is_for_all(pointer: ChannelPointer, base: Offer) -> bool:
    """Tell whether all of a channel's machines may take its newest release in time.

    Else a share of them says nothing about how many it reaches: those of other
    platforms, and those that have to take another release first, stay silent.
    """
    top = pointer.releases[0]
    return top.from_seq_min <= base.seq and all(
        top.platforms is None
        or (offer.platforms is not None and set(offer.platforms) <= set(top.platforms))
        for offer in pointer.releases
    )
