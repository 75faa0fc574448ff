# SPDX-License-Identifier: Apache-2.0
"""What machines reported, as evidence about a rollout.

The server counts machines, each once, by how the release ended there last. Its answer
may be an older server's, or nonsense: then there is no evidence, and nothing moves.
"""

from collections.abc import Mapping
from typing import Any

from updaterd.core import pace
from updaterd.core.channel import ChannelPointer
from updaterd.core.watching import Evidence
from updaterd.errors import BrokenError
from updaterd.net import Fetcher
from updaterd.release import fleet


def read(
    fetcher: Fetcher, url: str, pointer: ChannelPointer, *, now: float
) -> Evidence:
    """Return what is known of the newest release of a channel, and of the one beneath.

    Args:
        fetcher: asks the network, with a token of the scope `fleet:read`.
        url: `fleet.address` of the counts.
        pointer: the channel; it offers something.
        now: Unix seconds: the release's own pace may keep machines waiting.

    Raises:
        TransientError: the server cannot be reached.
        BrokenError: it does not know the token, takes no reports, or answers nonsense.
    """
    product, channel = pointer.product, pointer.channel
    try:
        machines = fleet.population(fetcher, url).get((product, channel), 0)
        ends = [
            _ends(fleet.release(fetcher, url, product, channel, offer.version))
            for offer in pointer.releases[:2]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenError(
            f"{url} answers what this updaterd does not read: {error!r:.100}",
            means="there is no evidence, so nothing moves",
            do="update the server to the version of this updaterd",
            code="not_a_feed",
        ) from error
    well, failed, other = ends[0]
    beneath = pointer.releases[1].version if len(ends) > 1 else ""
    base_well, base_failed, _ = ends[1] if beneath else (0, 0, 0)
    # machines are known once they have reported: of a fleet that has only begun to,
    # nobody knows how many a step reaches
    is_known = 2 * (base_well + base_failed) >= machines > 0
    top = pointer.releases[0]
    permille = top.rollout.permille
    if top.pace is not None:
        permille = min(permille, pace.reached(top.pace, now))
    return Evidence(
        well=well,
        failed=failed,
        other=other,
        reached=machines * permille // 1000 if is_known else 0,
        base_version=beneath,
        base_well=base_well,
        base_failed=base_failed,
    )


def _ends(release: Mapping[str, Any] | None) -> tuple[int, int, int]:
    """Return where a release runs, where it is at fault, and where it failed else."""
    well, failed, other = 0, 0, 0
    for item in release["codes"] if release is not None else ():
        machines = fleet.count(item)
        if item["outcome"] == "installed":
            well += machines
        elif item["fault"] == "release":
            failed += machines
        else:
            other += machines
    return well, failed, other
