# SPDX-License-Identifier: Apache-2.0
"""Stepping stones: releases that older machines install on their way to a newer one.

A release may be installable only from a seq on (`from_seq_min` of its manifest), since
only releases from there on leave data that it can read. A channel names the releases
that lead there. A way visits them in ascending order, so none goes round in a circle.
"""

from __future__ import annotations

from updaterd.core.frozen import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_STONES = 16


@record
class Stone:
    """A release that may be on the way.

    Attributes:
        from_seq_min: lowest seq of an installed release that it can be installed over.
        platforms: whose machines it is for, sorted.
    """

    version: str
    seq: int
    from_seq_min: int
    platforms: tuple[str, ...]

    def as_custom(self) -> dict[str, object]:
        """Return the JSON object that is signed."""
        item: dict[str, object] = {"version": self.version, "seq": self.seq}
        if self.from_seq_min:
            item["from_seq_min"] = self.from_seq_min
        return {**item, "platforms": list(self.platforms)}


def way(
    start: int, seq: int, from_seq_min: int, stones: Iterable[Stone]
) -> tuple[Stone, ...] | None:
    """Return the stones from what is installed to a release, lowest first.

    As few as possible, and of several that do as well the newest.

    Args:
        start: seq of what is installed.
        seq: of the release.
        from_seq_min: of the release.
        stones: those that may be used.

    Returns:
        Nothing when the release can be installed at once; None: there is no way.
    """
    usable = tuple(stones)
    steps: tuple[Stone, ...] = ()
    while start < from_seq_min:
        stone = before(seq, from_seq_min, usable)
        if stone is None:
            return None
        steps = (stone, *steps)
        seq, from_seq_min = stone.seq, stone.from_seq_min
    return steps


def before(seq: int, from_seq_min: int, stones: Iterable[Stone]) -> Stone | None:
    """Return the last stone before a release; None where none takes older machines.

    It is the one that takes the oldest machines.
    """
    fitting = [
        stone
        for stone in stones
        if from_seq_min <= stone.seq < seq and stone.from_seq_min < from_seq_min
    ]
    return min(fitting, key=lambda s: (s.from_seq_min, -s.seq), default=None)
