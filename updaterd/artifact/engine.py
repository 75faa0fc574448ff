"""Apply copy/add operations with bounded memory.

Operations are applied in batches by bsdiff4's C core: a batch makes at most 512 KiB
and reads one range of the old data, or the pieces it needs brought together.
Everything the core takes on trust (it reads out of range as zero, and allocates what
it is told) was checked in `operations.check` before.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from operator import add
from typing import Protocol, cast

import bsdiff4.core

from updaterd.artifact.codecs import Stream
from updaterd.artifact.operations import Block
from updaterd.artifact.sources import Concatenation

BATCH = 1 << 19
"""Most bytes made at a time."""
_CLOSE = 1 << 16  # bytes that may be read in vain to read in one go
_LEAD = struct.Struct("<qqq")


class Diff(Protocol):
    """Where the bytes come from that are added to old ones."""

    def read(self, count: int) -> bytes | None:
        """Return `count` bytes, or None for as many zeros."""

    def finish(self) -> None:
        """Check that it ends here."""


class Engine:
    """Turns blocks of operations into new bytes."""

    def __init__(
        self,
        old: Concatenation,
        diff: Diff,
        extra: Stream,
        write: Callable[[bytes], None],
        barriers: Sequence[int] = (),
    ) -> None:
        """Prepare to apply.

        Args:
            old: what is copied from.
            diff: what is added to it.
            extra: what is new.
            write: takes the new bytes.
            barriers: how many bytes are made when each of the files is complete
                that later operations read; ascending.
        """
        self._old = old
        self._diff = diff
        self._extra = extra
        self._write = write
        self._barriers = barriers
        self._passed = 0
        self._made = 0

    def run(self, blocks: Iterable[Block]) -> None:
        """Apply every block, and check that both streams end with the last one.

        Raises:
            MalformedError: a stream is broken, too short or too long.
            OSError: the disk refused.
        """
        self._emit(b"")
        for block in blocks:
            self._block(block)
        self._diff.finish()
        self._extra.finish()

    def _emit(self, data: bytes) -> None:
        self._write(data)
        self._made += len(data)
        while self._passed < len(self._barriers) and (
            self._made >= self._barriers[self._passed]
        ):
            self._passed += 1
            self._old.allow(self._passed)

    def _most(self) -> int:
        """Return how much may be made before a file can be read that is made now."""
        if self._passed == len(self._barriers):
            return BATCH
        return min(BATCH, self._barriers[self._passed] - self._made)

    def _block(self, block: Block) -> None:
        first, count = 0, len(block.starts)
        while first < count:
            last = block.fits(first, self._most())
            if last > first:
                self._batch(block, first, last)
                first = last
            else:
                self._large(block, first)
                first += 1

    def _batch(self, block: Block, first: int, last: int) -> None:
        """Apply the operations [first, last), which make at most a batch."""
        size = block.made[last] - block.made[first]
        starts, lengths = block.starts[first:last], block.lengths[first:last]
        ends = list(map(add, starts, lengths))
        low, high = min(starts), max(ends)
        control = block.triples(first, last)
        if high - low <= _CLOSE + 2 * size:
            old = self._old.read(low, high)
            control = _LEAD.pack(0, 0, starts[0] - low) + control
        else:
            # They jump about: bring their pieces together, so none has to skip.
            old = b"".join(self._old.pieces(starts, ends))
            still = bytearray(control)
            for plane in range(16, 24):
                still[plane::24] = bytes(last - first)
            control = bytes(still)
        copied = sum(lengths)
        diff = self._diff.read(copied)
        if diff is None and last - first == 1 and copied == size:
            self._emit(old)
            return
        extra = self._extra.read(size - copied)
        self._emit(_patch(old, size, control, diff or bytes(copied), extra))

    def _large(self, block: Block, index: int) -> None:
        """Apply one operation that makes more than a batch, in pieces."""
        start, left = block.starts[index], block.lengths[index]
        while left:
            count = min(left, BATCH)
            data = self._old.read(start, start + count)
            diff = self._diff.read(count)
            if diff is not None:
                data = _patch(data, count, _LEAD.pack(count, 0, 0), diff, b"")
            self._emit(data)
            start += count
            left -= count
        left = block.extras[index]
        while left:
            count = min(left, BATCH)
            self._emit(self._extra.read(count))
            left -= count


def _patch(old: bytes, size: int, control: bytes, diff: bytes, extra: bytes) -> bytes:
    return cast("bytes", bsdiff4.core.patch(old, size, control, diff, extra))
