"""Apply copy/add operations with bounded memory.

Operations are applied in batches by bsdiff4's C core: a batch makes at most 512 KiB
and reads one window of the old data. Everything the core takes on trust (it reads
out of range as zero, and allocates what it is told) was checked in
`operations.check` before.
"""

import struct
from collections.abc import Callable, Iterator
from typing import cast

import bsdiff4.core

from updaterd.artifact.codecs import Stream
from updaterd.artifact.operations import Block
from updaterd.artifact.sources import Concatenation

BATCH = 1 << 19
"""Most bytes made at a time."""
_WINDOW = 1 << 20
_LEAD = struct.Struct("<qqq")


class Engine:
    """Turns blocks of operations into new bytes."""

    def __init__(
        self,
        old: Concatenation,
        diff: Stream,
        extra: Stream,
        write: Callable[[bytes], None],
    ) -> None:
        self._old = old
        self._diff = diff
        self._extra = extra
        self._write = write

    def run(self, blocks: Iterator[Block]) -> None:
        """Apply every block, and check that both streams end with the last one.

        Raises:
            MalformedError: a stream is broken, too short or too long.
            OSError: the disk refused.
        """
        for block in blocks:
            self._block(block)
        self._diff.finish()
        self._extra.finish()

    def _block(self, block: Block) -> None:
        first, count = 0, len(block.starts)
        while first < count:
            last = block.fits(first, BATCH)
            if last <= first:
                self._large(block, first)
                first += 1
                continue
            low, high, last = _window(block, first, last)
            lead = _LEAD.pack(0, 0, block.starts[first] - low)
            self._write(
                _patch(
                    self._old.read(low, high),
                    block.made[last] - block.made[first],
                    lead + block.triples(first, last),
                    self._diff.read(sum(block.lengths[first:last])),
                    self._extra.read(sum(block.extras[first:last])),
                )
            )
            first = last

    def _large(self, block: Block, index: int) -> None:
        """Apply one operation that makes more than a batch, in pieces."""
        start, left = block.starts[index], block.lengths[index]
        while left:
            count = min(left, BATCH)
            old = self._old.read(start, start + count)
            control = _LEAD.pack(count, 0, 0)
            self._write(_patch(old, count, control, self._diff.read(count), b""))
            start += count
            left -= count
        left = block.extras[index]
        while left:
            count = min(left, BATCH)
            self._write(self._extra.read(count))
            left -= count


def _patch(old: bytes, size: int, control: bytes, diff: bytes, extra: bytes) -> bytes:
    return cast("bytes", bsdiff4.core.patch(old, size, control, diff, extra))


def _window(block: Block, first: int, last: int) -> tuple[int, int, int]:
    """Return the old bytes [low, high) that operations [first, last) read.

    Operations that jump about share a window only while it is small against what
    they make; else the batch is halved.
    """
    while True:
        starts = block.starts[first:last]
        low = min(starts)
        high = max(map(int.__add__, starts, block.lengths[first:last]))
        if last - first == 1:
            return low, high, last
        if high - low <= _WINDOW + 2 * (block.made[last] - block.made[first]):
            return low, high, last
        last = (first + last + 1) // 2
