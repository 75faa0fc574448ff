"""A diff as runs and changes (docs/formats.md), written a piece at a time.

How many zeros between two changes are worth a new run (`join`) depends on what is
diffed: text and most code like short runs; where the same changes come again and
again, the zeros between them are better left to the compressor.
"""

import re
from array import array
from collections.abc import Iterator

from updaterd.artifact.sparse import BLOCK
from updaterd.release import compress

JOINS = (3, 32)
_PIECE = 1 << 20
_SAMPLE = 32 << 20
_LONGEST_GAP = (1 << 24) - 1
_LONGEST_RUN = (1 << 16) - 1


class Runs:
    """Runs, as they add up; gaps and lengths take six bytes a run."""

    def __init__(self) -> None:
        self.gaps = array("I")
        self.lengths = array("H")
        self.idle = 0  # zeros since the last run

    def add(self, diff: bytes | bytearray, join: int) -> Iterator[bytes]:
        """Take more of a diff; yield the changes in it."""
        pattern = re.compile(rb"(\0*)([^\0]+(?:\0{1,%d}[^\0]+)*)" % join)
        view = memoryview(diff)
        for at in range(0, len(diff), _PIECE):
            piece = bytes(view[at : at + _PIECE])
            # Zeros at the end would be tried from each of them: quadratic.
            found = pattern.findall(piece.rstrip(b"\0"))
            if not found:
                self.idle += len(piece)
                continue
            zeros, changes = zip(*found, strict=True)
            gaps, lengths = list(map(len, zeros)), list(map(len, changes))
            covered = sum(gaps) + sum(lengths)
            gaps[0] += self.idle
            self.idle = len(piece) - covered
            self._take(gaps, lengths)
            yield b"".join(changes)

    def follow(self, other: "Runs") -> None:
        """Take the runs of the diff that follows this one."""
        if other.gaps:
            self._take([self.idle + other.gaps[0]], [other.lengths[0]])
            self.gaps += other.gaps[1:]
            self.lengths += other.lengths[1:]
            self.idle = other.idle
        else:
            self.idle += other.idle

    def _take(self, gaps: list[int], lengths: list[int]) -> None:
        if gaps[0] > _LONGEST_GAP or max(lengths) > _LONGEST_RUN:
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
        gap, left = start, length
        while gap > _LONGEST_GAP:
            out.append((_LONGEST_GAP, 0))
            gap -= _LONGEST_GAP
        while left > _LONGEST_RUN:
            out.append((gap, _LONGEST_RUN))
            gap, left = 0, left - _LONGEST_RUN
        out.append((gap, left))
    return [gap for gap, _ in out], [length for _, length in out]


def best_join(diff: bytes | bytearray) -> int:
    """Return the join that makes a diff smallest, judging by its first 32 MiB.

    Short samples mislead: what a compressor gains from repetitions shows late.
    """
    sample = diff[:_SAMPLE]

    def size(join: int) -> int:
        runs = Runs()
        changes = b"".join(runs.add(sample, join))
        planes = b"".join(runs.blocks())
        return compress.guess(planes, planar=True) + compress.guess(changes)

    return min(JOINS, key=size)
