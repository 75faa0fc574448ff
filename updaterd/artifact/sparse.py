"""The diff stream without its long runs of zeros.

Between two releases most of what is copied is copied unchanged, so the diff is zero
nearly everywhere. It is stored as runs: so many zeros, then so many bytes of the
`changes` stream. Blocks of up to 4096 runs, plane by plane:

    count u16 - 1; three planes of the gaps; two planes of the lengths

After the last run everything is zero. Gaps cost nothing to decode, and a compressor
sees all the changes of a release inside one window.
"""

import re
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from operator import add
from typing import cast

import bsdiff4.core

from updaterd.artifact.codecs import Stream
from updaterd.errors import MalformedError

BLOCK = 1 << 12
PIECE = 1 << 19
"""Most bytes that are expanded at a time."""
_LONGEST_GAP = (1 << 24) - 1
_LONGEST_RUN = (1 << 16) - 1


def encode(diff: bytes, join: int) -> tuple[bytes, bytes]:
    """Return the runs and the changes of a diff.

    Args:
        diff: the dense diff.
        join: zeros between two changes that are not worth a new run.
    """
    changed = re.compile(rb"[^\0]+(?:\0{1,%d}[^\0]+)*" % join)
    runs: list[tuple[int, int]] = []
    changes = []
    at = 0
    for match in changed.finditer(diff):
        start, end = match.span()
        gap, length = start - at, end - start
        at = end
        changes.append(match.group())
        while gap > _LONGEST_GAP:
            runs.append((_LONGEST_GAP, 0))
            gap -= _LONGEST_GAP
        while length > _LONGEST_RUN:
            runs.append((gap, _LONGEST_RUN))
            gap, length = 0, length - _LONGEST_RUN
        runs.append((gap, length))
    return b"".join(_blocks(runs)), b"".join(changes)


def _blocks(runs: list[tuple[int, int]]) -> Iterator[bytes]:
    for first in range(0, len(runs), BLOCK):
        part = runs[first : first + BLOCK]
        gaps = b"".join(gap.to_bytes(3, "little") for gap, _ in part)
        lengths = b"".join(length.to_bytes(2, "little") for _, length in part)
        yield (len(part) - 1).to_bytes(2, "little")
        yield from (gaps[plane::3] for plane in range(3))
        yield from (lengths[plane::2] for plane in range(2))


class Sparse:
    """Exact-length reads of a diff, made from its runs and changes."""

    def __init__(self, runs: Stream, changes: Stream) -> None:
        self._runs = runs
        self._changes = changes
        self._planes: list[bytes] = []
        self._gaps = array("I")
        self._lengths = array("H")
        self._next = 0
        self._spare, self._at = b"", 0

    def read(self, count: int) -> bytes | None:
        """Return the next `count` bytes; None when all of them are zero.

        Raises:
            MalformedError: a stream is broken, or too short.
        """
        have = len(self._spare) - self._at
        if not have and self._quiet(count):
            return None
        parts = []
        while have < count:
            parts.append(self._spare[self._at :])
            count -= have
            self._spare, self._at = self._expand() or bytes(count), 0
            have = len(self._spare)
        end = self._at + count
        parts.append(self._spare[self._at : end])
        self._at = end
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Check that the diff ends here.

        Raises:
            MalformedError: runs or changes are left over.
        """
        if self._at < len(self._spare) or self._next < len(self._gaps):
            raise MalformedError("runs: not all of them are used")
        self._runs.finish()
        self._changes.finish()

    def _load(self) -> bool:
        """Have a run at hand; tell whether there is one.

        Raises:
            MalformedError: a block is too large or cut short.
        """
        if self._next < len(self._gaps):
            return True
        if not self._runs.left:
            return False
        count = int.from_bytes(self._runs.read(2), "little") + 1
        if count > BLOCK:
            raise MalformedError("runs: a block is too large")
        self._planes = [self._runs.read(count) for _ in range(5)]
        gaps, lengths = bytearray(4 * count), bytearray(2 * count)
        for plane in range(3):
            gaps[plane::4] = self._planes[plane]
        for plane in range(2):
            lengths[plane::2] = self._planes[3 + plane]
        self._gaps = array("I", bytes(gaps))
        self._lengths = array("H", bytes(lengths))
        if sys.byteorder == "big":
            self._gaps.byteswap()
            self._lengths.byteswap()
        if 0 in self._lengths and any(
            gap != _LONGEST_GAP
            for gap, length in zip(self._gaps, self._lengths, strict=True)
            if not length
        ):
            raise MalformedError("runs: one changes nothing")
        self._next = 0
        return True

    def _quiet(self, count: int) -> bool:
        """Take `count` zeros off the next gap, when it has as many."""
        if not self._load():
            return True
        if self._gaps[self._next] < count:
            return False
        self._gaps[self._next] -= count
        if not self._gaps[self._next] and not self._lengths[self._next]:
            self._next += 1
        return True

    def _expand(self) -> bytes:
        """Return the next bytes of the diff, at most PIECE; none after the last run."""
        if not self._load():
            return b""
        first = self._next
        gap, length = self._gaps[first], self._lengths[first]
        if gap + length > PIECE:
            taken = min(gap, PIECE)
            self._gaps[first] -= taken
            return bytes(taken)
        gaps, lengths = self._gaps[first:], self._lengths[first:]
        ends = list(accumulate(map(add, gaps, lengths)))
        count = max(1, bisect_right(ends, PIECE))
        self._next = last = first + count
        control = bytearray(24 * count)
        for plane in range(3):
            control[plane::24] = self._planes[plane][first:last]
        for plane in range(2):
            control[8 + plane :: 24] = self._planes[3 + plane][first:last]
        control[0:3] = gap.to_bytes(3, "little")  # some of it may be taken already
        zeros, changed = sum(gaps[:count]), sum(lengths[:count])
        changes = self._changes.read(changed)
        return _spread(bytes(control), bytes(zeros), changes)


def _spread(control: bytes, zeros: bytes, changes: bytes) -> bytes:
    size = len(zeros) + len(changes)
    return cast("bytes", bsdiff4.core.patch(b"", size, control, zeros, changes))
