# SPDX-License-Identifier: Apache-2.0
"""A diff as runs and changes (docs/formats.md), written a piece at a time.

How many zeros between two changes are worth a new run depends on what is diffed:
text and most code like short runs; in tables, where the same changes come again and
again, the zeros between them are better left to the compressor. A program holds
both, so each piece of it gets what is smaller.
"""

import re
from array import array
from collections.abc import Iterator

from updaterd.artifact.apply.sparse import BLOCK
from updaterd.release.bundles.packing import compress

PIECE = 1 << 18
"""Bytes of a diff that are judged at a time."""
_PATTERNS = [  # no zeros in a run, or up to so many
    re.compile(rb"(\0*)([^\0]+)"),
    re.compile(rb"(\0*)([^\0]+(?:\0{1,512}[^\0]+)*)"),
]
_LONGEST_GAP = (1 << 24) - 1
_LONGEST_RUN = (1 << 16) - 1


class Runs:
    """Runs, as they add up; gaps and lengths take six bytes a run."""

    def __init__(self) -> None:
        self.gaps = array("I")
        self.lengths = array("H")
        self.idle = 0  # zeros since the last run

    def add(self, diff: bytes | bytearray) -> Iterator[bytes]:
        """Take more of a diff; yield the changes in it."""
        view = memoryview(diff)
        for at in range(0, len(diff), PIECE):
            piece = bytes(view[at : at + PIECE])
            # Zeros at the end would be tried from each of them: quadratic.
            changed = piece.rstrip(b"\0")
            if changed:
                runs, changes = _best(changed)
                self.follow(runs)
                yield changes
            self.idle += len(piece) - len(changed)

    def follow(self, other: "Runs") -> None:
        """Take the runs of the diff that follows this one."""
        # What is too long for one gap lies in several, all but the last without a
        # length: only the last of them can take up the zeros before it.
        first, gap = 0, self.idle
        while first < len(other.gaps) and not other.lengths[first]:
            gap += other.gaps[first]
            first += 1
        if first < len(other.gaps):
            self.take([gap + other.gaps[first]], [other.lengths[first]])
            self.gaps += other.gaps[first + 1 :]
            self.lengths += other.lengths[first + 1 :]
            gap = 0
        self.idle = gap + other.idle

    def take(self, gaps: list[int], lengths: list[int]) -> None:
        """Take runs: the zeros before each, and its bytes."""
        if max(gaps) > _LONGEST_GAP or max(lengths) > _LONGEST_RUN:
            gaps, lengths = _short(gaps, lengths)
        self.gaps.extend(gaps)
        self.lengths.extend(lengths)

    def blocks(self) -> Iterator[bytes]:
        """Yield the runs stream."""
        for first in range(0, len(self.gaps), BLOCK):
            gaps = array("I", self.gaps[first : first + BLOCK])
            lengths = array("H", self.lengths[first : first + BLOCK])
            if compress.BIG_ENDIAN:
                gaps.byteswap()
                lengths.byteswap()
            wide, narrow = gaps.tobytes(), lengths.tobytes()
            yield (len(gaps) - 1).to_bytes(2, "little")
            yield from (wide[plane::4] for plane in range(3))
            yield from (narrow[plane::2] for plane in range(2))


def _short(gaps: list[int], lengths: list[int]) -> tuple[list[int], list[int]]:
    """Return the same runs, none of them longer than the format allows."""
    out: list[tuple[int, int]] = []
    for start, length in zip(gaps, lengths, strict=True):
        gap, rest = start, length
        while gap > _LONGEST_GAP:
            out.append((_LONGEST_GAP, 0))
            gap -= _LONGEST_GAP
        while rest > _LONGEST_RUN:
            out.append((gap, _LONGEST_RUN))
            gap, rest = 0, rest - _LONGEST_RUN
        out.append((gap, rest))
    return [gap for gap, _ in out], [length for _, length in out]


def _best(diff: bytes) -> tuple[Runs, bytes]:
    """Return the runs and changes of a diff, joined the way that is smallest."""
    choices = [_split(diff, pattern) for pattern in _PATTERNS]
    if len({len(runs.gaps) for runs, _ in choices}) == 1:
        return choices[0]  # the same runs
    return min(choices, key=_size)


def _split(diff: bytes, pattern: "re.Pattern[bytes]") -> tuple[Runs, bytes]:
    zeros, changes = zip(*pattern.findall(diff), strict=True)
    runs = Runs()
    runs.take(list(map(len, zeros)), list(map(len, changes)))
    return runs, b"".join(changes)


def _size(choice: tuple[Runs, bytes]) -> int:
    runs, changes = choice
    planes = b"".join(runs.blocks())
    return compress.guess(planes, planar=True) + compress.guess(changes)
