# SPDX-License-Identifier: Apache-2.0
"""What machines reported, as evidence about a rollout.

The server counts machines, each once, by how the release ended there last. Its answer
may be an older server's, or nonsense: then there is no evidence, and nothing moves.
"""

from collections.abc import Mapping
from typing import Any

from updaterd.core.channel import ChannelPointer
from updaterd.core.evidence import Ends, ends_of, gathered
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

    def ends(version: str) -> Ends:
        return _ends(fleet.release(fetcher, url, product, channel, version))

    try:
        machines = fleet.population(fetcher, url).get((product, channel), 0)
        return gathered(pointer, ends, machines=machines, now=now)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenError(
            f"{url} answers what this updaterd does not read: {error!r:.100}",
            means="there is no evidence, so nothing moves",
            do="update the server to the version of this updaterd",
            code="not_a_feed",
        ) from error


def _ends(release: Mapping[str, Any] | None) -> Ends:
    """Return how a release ended, by the server's answer about it."""
    rows = release["codes"] if release is not None else ()
    return ends_of((row["outcome"], row["fault"], fleet.count(row)) for row in rows)
