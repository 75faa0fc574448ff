"""The loops that apply a delta, compiled: each does a whole block or batch at once.

The same as `interpreted`, which serves where updaterd was built without a compiler.
"""

from __future__ import annotations

import sys
from bisect import bisect_right

from updaterd.artifact import _native, sources
from updaterd.artifact.blocks import Block, head
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap
    from pathlib import Path

    from updaterd.artifact.blocks import Column
    from updaterd.artifact.codecs import Stream
    from updaterd.core.tree import File

    Piece = tuple[int, mmap | bytes, bytearray]
    """Some of the old data: where it begins, its bytes, and which are in memory."""

RUNS = 1 << 14
_PLANES = 5  # of a block of runs: three of the gaps, two of the lengths
_PIECE = 1 << 16  # bytes of a short file that are read at a time
_STEP = 1 << 25  # a long one is mapped in pieces of so many
_AT_HAND = 16  # pieces
_FAULT = 1 << 16  # bytes of a file that one page fault maps
_MUCH = 36 << 20  # bytes in memory at which what is mapped is given back
_LEAST = 1 << 21  # bytes mapped between two looks at that


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
        self._left = 0  # bytes of the diff until that block ends
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
        self._left -= count
        return changed

    def _known(self) -> int:
        """Return for how many bytes from here the runs are at hand.

        Raises:
            MalformedError: a block is too large or cut short.
        """
        if self._next == self._count:
            if not self._stream.left:
                return sys.maxsize - self._at  # zeros to the end
            self._load()
        return self._left

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
        self._left = end - self._at


class Concatenation(sources.Concatenation):
    """The old tree, and what is made of the new one, read as one: see `sources`."""

    def __init__(
        self,
        old: Path | str,
        files: Sequence[File],
        new: Path | str,
        made: Sequence[File] = (),
    ) -> None:
        """Prepare to read: see `sources.Concatenation`."""
        super().__init__(old, files, new, made)
        self._pieces: list[Piece] = []  # the newest last
        self._allowance = _LEAST

    def gather(self, starts: Column, ends: Column) -> bytearray:
        """Return many ranges, joined.

        Raises:
            MalformedError: a file is read that is not made yet.
        """
        try:
            data, self._allowance = _native.gather(
                starts, ends, self._piece_at, self._allowance, self._look
            )
        except ValueError as error:
            raise MalformedError(str(error)) from None
        return data

    def _piece_at(self, position: int) -> Piece:
        """Return a piece that has this position.

        Raises:
            MalformedError: it is in a file that is not made yet.
        """
        for piece in self._pieces:
            if piece[0] <= position < piece[0] + len(piece[1]):
                return piece
        if position >= self._limit:
            raise MalformedError(sources.NOT_MADE)
        index = bisect_right(self._starts, position) - 1
        start, length = self._starts[index], self._files[index].length
        found = self._map(index, position - start) if length >= sources.LONG else None
        if found is None:
            first = (position - start) // _PIECE * _PIECE
            count = min(length - first, _PIECE)
            data = self._piece(index, first, count)
            found = start + first, data + bytes(count - len(data)), bytearray()
        if len(self._pieces) == _AT_HAND:
            del self._pieces[0]
        self._pieces.append(found)
        return found

    def _map(self, index: int, offset: int) -> Piece | None:
        """Return the piece of a long file that has this offset; None: read it."""
        fd = self._descriptor(index)
        if fd is None:
            return None
        from mmap import ACCESS_READ, mmap  # noqa: PLC0415 - for long files only

        first = offset // _STEP * _STEP
        size = min(self._files[index].length - first, _STEP)
        try:
            mapped = mmap(fd, size, access=ACCESS_READ, offset=first)
        except (OSError, ValueError):  # cannot be mapped, or was cut short
            return None
        return self._starts[index] + first, mapped, bytearray(size // _FAULT + 1)

    def _look(self) -> int:
        """Look how much memory is taken, and give back what is mapped if it is much.

        Returns:
            How many bytes may be mapped until the next look. The rest of the worker
            grows too, and where a mapping begins is not where 64 KiB begin.
        """
        resident = sources.resident()
        if resident > _MUCH:
            for _, data, touched in self._pieces:
                if not isinstance(data, bytes):
                    data.madvise(sources.DONTNEED)
                    touched[:] = bytes(len(touched))
        return max(_LEAST, (_MUCH - resident) // 4)

    def close(self) -> None:
        """Close every file."""
        self._pieces.clear()
        super().close()
