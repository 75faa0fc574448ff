# SPDX-License-Identifier: Apache-2.0
"""Apply copy/add operations with bounded memory.

Operations are applied in batches that make at most 256 KiB: the old pieces are
brought together, the diff is added to them where it is not zero, and what is new is
put in between. Each of these is done for a whole batch at once, compiled or not:
`loops` says where.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    from updaterd.artifact.apply.blocks import Block, Column
    from updaterd.artifact.apply.sink import Sink
    from updaterd.artifact.apply.sources import Concatenation
    from updaterd.artifact.codecs import Stream

    Project = Callable[[bytearray, Column, Column, Column, int], None]
    """As `Projection.project`."""

    class Diff(Protocol):
        """What is added to old bytes, from start to end."""

        def add(
            self,
            old: bytearray,
            lengths: Column,
            extras: Column,
            extra: bytes,
        ) -> bytes | bytearray:
            """Return what operations of these lengths make.

            Args:
                old: all that they take from the old data; the diff is added to it,
                    in place if need be.
                lengths: of their pieces of it.
                extras: bytes of `extra` that follow each.
                extra: all that is new.
            """

        def skip(self, count: int) -> None:
            """Pass over `count` bytes of the diff."""

        def finish(self) -> None:
            """Check that it ends here."""


BATCH = 1 << 18
"""Most bytes made at a time: what stays in a processor's cache."""


def _column(number: int) -> Column:
    """Return a column of one."""
    return memoryview(number.to_bytes(8, sys.byteorder)).cast("q")


class Engine:
    """Turns blocks of operations into new bytes."""

    def __init__(  # noqa: PLR0913, PLR0917 - everything it moves between
        self,
        old: Concatenation,
        diff: Diff,
        extra: Stream,
        sink: Sink,
        barriers: Sequence[int] = (),
        project: Project | None = None,
    ) -> None:
        """Prepare to apply.

        Args:
            old: what is copied from.
            diff: what is added to it.
            extra: what is new.
            sink: takes the new bytes, and says which it does not want.
            barriers: how many bytes are made when each of the files is complete
                that later operations read; ascending.
            project: changes what copies bring before the diff is added to it.
        """
        self._old = old
        self._diff = diff
        self._extra = extra
        self._write = sink.write
        self._unwanted = sink.unwanted
        self._leave = sink.leave
        self._barriers = barriers
        self._project = project
        self._passed = 0
        self._offset = 0

    def run(self, blocks: Iterable[Block]) -> None:
        """Apply every block, and check that both streams end with the last one.

        Raises:
            MalformedError: a stream is broken, too short or too long.
            OSError: the disk refused.
        """
        self._count(0)
        for block in blocks:
            self._block(block)
        self._diff.finish()
        self._extra.finish()

    def _emit(self, data: bytes | bytearray) -> None:
        self._write(data)
        self._count(len(data))

    def _count(self, count: int) -> None:
        self._offset += count
        while self._passed < len(self._barriers) and (
            self._offset >= self._barriers[self._passed]
        ):
            self._passed += 1
            self._old.allow(self._passed)

    def _most(self) -> int:
        """Return how much may be made before a file can be read that is made now."""
        if self._passed == len(self._barriers):
            return BATCH
        return min(BATCH, self._barriers[self._passed] - self._offset)

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
        size = block.offsets[last] - block.offsets[first]
        lengths = block.lengths[first:last]
        if self._unwanted() >= size:
            copied = sum(lengths)
            self._pass(copied, size - copied)
            return
        old = self._old.gather(block.starts[first:last], block.ends[first:last])
        copied = len(old)
        if self._project is not None and copied:
            base = self._offset - block.offsets[first]
            starts, offsets = block.starts[first:last], block.offsets[first:last]
            self._project(old, starts, lengths, offsets, base)
        extra = self._extra.read(size - copied) if copied < size else b""
        if copied:
            extras = block.extras[first:last]
            self._emit(self._diff.add(old, lengths, extras, extra))
        else:
            self._emit(extra)

    def _large(self, block: Block, index: int) -> None:
        """Apply one operation that makes more than a batch, in pieces."""
        start, remaining = block.starts[index], block.lengths[index]
        while remaining:
            count = min(remaining, BATCH)
            if self._unwanted() >= count:
                self._pass(count, 0)
            else:
                old = self._old.gather(_column(start), _column(start + count))
                length, nothing = _column(count), _column(0)
                if self._project is not None:
                    self._project(old, _column(start), length, nothing, self._offset)
                self._emit(self._diff.add(old, length, nothing, b""))
            start += count
            remaining -= count
        remaining = block.extras[index]
        while remaining:
            count = min(remaining, BATCH)
            if self._unwanted() >= count:
                self._pass(0, count)
            else:
                self._emit(self._extra.read(count))
            remaining -= count

    def _pass(self, copied: int, extra: int) -> None:
        """Move over what nobody wants, without making it."""
        self._diff.skip(copied)
        self._extra.skip(extra)
        self._leave(copied + extra)
        self._count(copied + extra)
