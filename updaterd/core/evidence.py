# SPDX-License-Identifier: Apache-2.0
"""How a release ended on machines, gathered into what a rollout is judged by.

Pure: whoever watches and whoever only shows it come to the same.
"""

from collections.abc import Iterable

from updaterd.core.channel import ChannelPointer
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


def beneath(pointer: ChannelPointer) -> str:
    """Return the release that the others have; "": there is none.

    One that was halted is offered to nobody any more. The next one is not measured by
    how that failed, nor is its reach by the few machines that had it.
    """
    for offer in pointer.releases[1:]:
        if offer.rollout.permille > 0 or offer.rollout.tags:
            return offer.version
    return ""


def gathered(
    top: Ends, base: Ends, *, base_version: str, machines: int, permille: int
) -> Evidence:
    """Return the evidence about a channel's newest release.

    Args:
        top: how it ended.
        base: how the release beneath ended.
        base_version: which that is; "": none.
        machines: those that follow the channel, as far as they have reported.
        permille: machines of 1000 that the rollout and the release's pace let have it.
    """
    # machines are known once they have reported: of a fleet that has only begun to,
    # nobody knows how many a step reaches
    is_known = 2 * (base.well + base.failed) >= machines > 0
    return Evidence(
        well=top.well,
        failed=top.failed,
        other=top.other,
        reached=machines * permille // 1000 if is_known else 0,
        base_version=base_version,
        base_well=base.well,
        base_failed=base.failed,
    )
