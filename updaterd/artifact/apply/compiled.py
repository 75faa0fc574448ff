# SPDX-License-Identifier: Apache-2.0
"""The loops that apply a delta, compiled: each does a whole block or batch at once.

The same as `interpreted`, which serves where updaterd was built without a compiler.
"""

from __future__ import annotations

import sys
from bisect import bisect_right

from updaterd.artifact import _native
from updaterd.artifact.apply import sources
from updaterd.artifact.apply.blocks import Block, head
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from updaterd.artifact.apply.blocks import Column
    from updaterd.artifact.codecs import Stream

RUNS = 1 << 14
_PLANES = 5  # of a block of runs: three of the gaps, two of the lengths


def decode(stream: Stream, position: int, old_size: int) -> Block:
    """Return the next block of a control stream: see `operations.decode`.

    Raises:
        MalformedError: cut short, or an operation leaves the old data.
    """
    count, widths = head(stream)
    planes = stream.read(count * (sum(widths) + 1))
    a, b, c = widths
    try:
        columns, end = _native.operations(planes, a, b, c, position, old_size)
    except ValueError as error:
        raise MalformedError(str(error)) from None
    return _block(columns, end)


def check(control: bytes, position: int, old_size: int) -> Block:
    """Return bsdiff's control triples as a block, checked against the old data.

    Raises:
        MalformedError: a length is negative, or an operation leaves the old data.
    """
    try:
        columns, end = _native.triples(control, position, old_size)
    except ValueError as error:
        raise MalformedError(str(error)) from None
    return _block(columns, end)


def _block(columns: bytes, end: int) -> Block:
    view = memoryview(columns).cast("q")
    count = len(view) // 5
    cuts = (view[at : at + count] for at in range(0, 4 * count, count))
    starts, ends, lengths, extras = cuts
    return Block(starts, ends, lengths, extras, view[4 * count :], end)


class Dense:
    """A diff that is stored whole, as `bsdiff` does."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.skip = stream.skip
        self.finish = stream.finish

    def add(
        self, old: bytearray, lengths: Column, extras: Column, extra: bytes
    ) -> bytearray:
        """Add the next bytes of the diff to `old`; return it, `extra` woven in.

        Raises:
            MalformedError: the stream is broken, or too short.
        """
        _native.add_all(old, self._stream.read(len(old)))
        return _native.weave(old, lengths, extra, extras) if extra else old


class Sparse:
    """A diff that is stored as runs of changes: see `sparse`."""

    def __init__(self, runs: Stream, changes: Stream) -> None:
        self._stream = runs
        self._changes = changes
        self._runs = b""  # of the block at hand: where they begin, where they end
        self._remaining = 0  # bytes of the diff until that block ends
        self._next = 0  # run
        self._count = 0
        self._at = 0  # in the whole diff

    def add(
        self, old: bytearray, lengths: Column, extras: Column, extra: bytes
    ) -> bytearray:
        """Add as many bytes of the diff to `old`; return it, `extra` woven in.

        Raises:
            MalformedError: a stream is broken, or too short.
        """
        done, size = 0, len(old)
        while done < size:
            step = min(size - done, self._known())
            runs, first, at, stop = self._runs, self._next, self._at, self._at + step
            changed = self._take(step)
            if changed:
                changes = self._changes.read(changed)
                _native.add(old, done, runs, first, at, stop, changes)
            done += step
        return _native.weave(old, lengths, extra, extras) if extra else old

    def skip(self, count: int) -> None:
        """Pass over `count` bytes of the diff.

        Raises:
            MalformedError: a stream is broken, or too short.
        """
        while count:
            step = min(count, self._known())
            self._changes.skip(self._take(step))
            count -= step

    def finish(self) -> None:
        """Check that the diff ends here.

        Raises:
            MalformedError: runs or changes are left over.
        """
        if self._next < self._count:
            raise MalformedError("runs: not all of them are used")
        self._stream.finish()
        self._changes.finish()

    def _take(self, count: int) -> int:
        """Return how many of the next `count` bytes change; move past them."""
        stop = self._at + count
        changed, self._next = _native.changed(self._runs, self._next, self._at, stop)
        self._at = stop
        self._remaining -= count
        return changed

    def _known(self) -> int:
        """Return for how many bytes from here the runs are at hand.

        Raises:
            MalformedError: a block is too large or cut short.
        """
        if self._next == self._count:
            if not self._stream.remaining:
                return sys.maxsize - self._at  # zeros to the end
            self._load()
        return self._remaining

    def _load(self) -> None:
        """Read the next block of runs.

        Raises:
            MalformedError: it is too large or cut short.
        """
        count = int.from_bytes(self._stream.read(2), "little") + 1
        if count > RUNS:
            raise MalformedError("runs: a block is too large")
        planes = self._stream.read(_PLANES * count)
        try:
            self._runs = _native.runs(planes, self._at)
        except ValueError as error:
            raise MalformedError(str(error)) from None
        self._next, self._count = 0, count
        end = int.from_bytes(self._runs[-8:], sys.byteorder)
        self._remaining = end - self._at


class Concatenation(sources.Concatenation):
    """The old tree, and what is made of the new one, read as one: see `sources`."""

    def gather(self, starts: Column, ends: Column) -> bytearray:
        """Return many ranges, joined.

        Raises:
            MalformedError: a file is read that is not made yet.
            OSError: a file of the new tree cannot be read.
        """
        try:
            data, cut = _native.gather(starts, ends, self._piece_at)
        except ValueError as error:
            raise MalformedError(str(error)) from None
        if cut >= 0:
            self._lacks(bisect_right(self._starts, cut) - 1)
        return data

    def _piece_at(self, position: int) -> tuple[int, int, int, int]:
        """Return where a position's file lies, its descriptor, and where it begins.

        Raises:
            MalformedError: it is not made yet.
        """
        if position >= self._limit:
            raise MalformedError(sources.NOT_MADE)
        index = bisect_right(self._starts, position) - 1
        fd = self._descriptor(index)
        if index in self._open:  # those asked for last stay so longest: see gather.c
            self._open[index] = self._open.pop(index)
        start = self._starts[index]
        end = start + self._files[index].length
        return start, end, -1 if fd is None else fd, self._base(index)
