# SPDX-License-Identifier: Apache-2.0
"""Re-aim the references in what is copied from one program to the next.

The Python twin of `native/projector.c`: it serves where updaterd was built without a
compiler (20 times slower), and the tests compare the two. docs/formats.md
("References") is what both follow to the letter.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from functools import partial
from itertools import accumulate
from struct import Struct

from updaterd.artifact.programs import arm, listed
from updaterd.artifact.programs.image import (
    ABSOLUTE,
    BACK,
    CHUNK,
    MAX_LISTED,
    PLAIN,
    RELATIVE,
    STEP,
    Image,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from updaterd.artifact.programs.listed import Listed

    Column = array[int] | memoryview[int] | bytes
    """Native int64 numbers."""
    _Columns = tuple[array[int], array[int], array[int]]
    Reference = tuple[int, int, int]
    """Place in the file, kind, and base (of offsets) or how it is made (of steps)."""

__all__ = ["PIECE", "Image", "Projector", "shifted"]

PIECE = 1 << 18
"""Longer copies are projected as several of this length."""

_MAX_PARTS = 1 << 20  # of the copies into one file
_CHUNKS = 256  # that are remembered: 2 MiB at most
_LISTED = 2 * MAX_LISTED  # references, of all lists that are remembered: 12 MiB
_LONGEST = (1 << 32) - 1  # bytes of a file with an image
_WIDE, _NARROW = (1 << 64) - 1, (1 << 32) - 1
_U64, _U32, _S32 = Struct("<Q"), Struct("<I"), Struct("<i")


class _Moves:
    """Where the bytes of one old program went, by the copies that read it."""

    def __init__(self, old: Image, new: Image, copies: _Columns) -> None:
        """Settle who has the say where copies overlap: the longer one.

        Args:
            old: the program.
            new: the one that is made.
            copies: starts and ends in the old file, and by how much they move, in
                the order of the stream.
        """
        self.old, self._new = old, new
        self._starts = array("q")
        self._shifts = array("q")
        starts, ends, shifts = copies
        end = length = 0  # of the last one; its length as it came
        for index in sorted(range(len(starts)), key=starts.__getitem__):
            start, stop = starts[index], ends[index]
            whole = stop - start
            if self._starts and start < end:
                if whole <= length:
                    start = end
                    if start >= stop:
                        continue
                elif start <= self._starts[-1]:  # nothing is left of that one
                    start = self._starts.pop()
                    self._shifts.pop()
            self._starts.append(start)
            self._shifts.append(shifts[index])
            end, length = stop, whole

    def address(self, address: int) -> int | None:
        """Return what an address of the old program is in the new one, if anything."""
        number = self.old.segment(address)
        if number is None:
            return None
        offset, begin, stored, _, _ = self.old.segments[number]
        into = address - begin
        if into < stored:
            offset += into
            last = bisect_right(self._starts, offset) - 1
            return self._new.address(offset + self._shifts[max(last, 0)])
        if number >= len(self._new.segments):
            return None
        _, begin, stored_now, _, _ = self._new.segments[number]
        return begin + stored_now + into - stored

    def aim(self, data: bytearray, at: int, shift: int, reference: Reference) -> None:
        """Rewrite one reference.

        Args:
            data: holds it.
            at: where the old file would begin in the data.
            shift: from the old file to the new one.
            reference: in the old file.
        """
        place, kind, base = reference
        at += place
        place_address = self._new.address(place + shift)
        if place_address is None:
            return
        target = self.address(target_of(self.old, data, at, reference))
        if target is None:
            return
        if kind == STEP:
            page_from = self._new.address(place + shift - arm.before(base))
            if page_from is not None:
                arm.put(data, at, base, target, place_address, page_from)
        elif kind == ABSOLUTE:
            _U64.pack_into(data, at, target & _WIDE)
        elif kind == RELATIVE:
            _U32.pack_into(data, at, target - place_address - 4 & _NARROW)
        elif kind == BACK:
            _U32.pack_into(data, at, place_address - target & _NARROW)
        else:
            moved = self.address(base)
            if moved is not None:
                _U32.pack_into(data, at, target - moved & _NARROW)


class Projector:
    """Rewrites what copies bring from old programs to where it points to now."""

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        starts: Column,
        lengths: Column,
        images: Sequence[Image | None],
    ) -> None:
        """Prepare for an address space of files.

        Args:
            read: returns its bytes [low, high), exactly.
            starts: of the files.
            lengths: of the files.
            images: of the files.

        Raises:
            ValueError: an image does not fit its file, or the files leave gaps.
        """
        self._bytes = read
        self._starts, self._lengths = numbers(starts), numbers(lengths)
        self._images = tuple(images)
        if not len(self._starts) == len(self._lengths) == len(self._images):
            raise ValueError("columns of different lengths")
        ends = list(accumulate(self._lengths, initial=0))
        if self._starts.tolist() != ends[:-1] or min(self._lengths, default=0) < 0:
            raise ValueError("files do not follow each other")
        for image, length in zip(self._images, self._lengths, strict=True):
            if image is not None and not image.end <= length <= _LONGEST:
                raise ValueError("an image does not fit its file")
        self._size = ends[-1]
        self._aimed = False
        self._moves: dict[int, _Moves] = {}  # by the old file's index
        self._searched: dict[tuple[int, int], array[int]] = {}
        self._lists: dict[int, Listed] = {}

    def aim(self, image: Image, starts: Column, lengths: Column, news: Column) -> None:
        """Learn where everything goes that the next made file takes.

        Args:
            image: of that file.
            starts: of all copies into it, in the address space.
            lengths: of them.
            news: where they go to, in that file.

        Raises:
            ValueError: one leaves the address space, or they have too many parts.
        """
        self._aimed = False
        self._moves = {}
        copies: dict[int, _Columns] = {}
        parts = self._parts(starts, lengths, news, None)
        for count, (index, start, size, new, _) in enumerate(parts):
            if count == _MAX_PARTS:
                raise ValueError("copies read too many programs")
            if index not in copies:
                copies[index] = array("q"), array("q"), array("q")
            for column, number in zip(
                copies[index], (start, start + size, new - start), strict=True
            ):
                column.append(number)
        while copies:
            index, columns = copies.popitem()
            old = self._images[index]
            assert old is not None
            self._moves[index] = _Moves(old, image, columns)
        self._aimed = True

    def project(
        self, data: bytearray, starts: Column, lengths: Column, news: Column
    ) -> None:
        """Re-aim the references in the old bytes of copies, in place.

        Args:
            data: of the copies, one after another.
            starts: of the copies, in the address space.
            lengths: of them.
            news: where they go to, in the file of the last `aim`.

        Raises:
            ValueError: one leaves the address space, they are not as long as the
                data, a file lists too many references, or there was no `aim`.
        """
        if sum(numbers(lengths)) != len(data):
            raise ValueError("the data have another length")
        if not self._aimed:
            raise ValueError("aim comes first")
        for index, start, size, new, at in self._parts(starts, lengths, news, PIECE):
            moves = self._moves.get(index)
            if moves is not None:
                for reference in self._references(index, start, start + size):
                    moves.aim(data, at - start, new - start, reference)

    def _parts(
        self, starts: Column, lengths: Column, news: Column, piece: int | None
    ) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield the parts of copies that lie in a file with an image.

        Args:
            starts: of the copies.
            lengths: of them.
            news: where they go to.
            piece: bytes that longer ones are cut into.

        Yields:
            Index of the file, offset in it, bytes, where they go to, and how many
            bytes of copies come before.

        Raises:
            ValueError: a copy leaves the address space.
        """
        at = 0
        columns = map(numbers, (starts, lengths, news))
        for begin, length, goal in zip(*columns, strict=True):
            end = begin + length
            if min(begin, length, goal) < 0 or end > self._size:
                raise ValueError("a copy leaves the address space")
            low = begin
            while low < end:
                index = bisect_right(self._starts, low) - 1
                offset = low - self._starts[index]
                size = min(end - low, self._lengths[index] - offset)
                if piece is not None:
                    size = min(size, piece - (low - begin) % piece)
                if self._images[index] is not None:
                    yield index, offset, size, goal + low - begin, at
                low += size
                at += size

    def _references(self, index: int, low: int, high: int) -> Iterator[Reference]:
        """Yield a file's references in [low, high): searched ones, then listed ones."""
        for chunk in range(low // CHUNK, (high + CHUNK - 1) // CHUNK):
            begin = chunk * CHUNK
            image = self._images[index]
            assert image is not None
            for code in self._search(index, chunk):
                place, kind, how = image.unpacked(code)
                place += begin
                first = place - arm.before(how) if kind == STEP else place
                if low <= first and place + (8 if kind == ABSOLUTE else 4) <= high:
                    yield place, kind, how
        yield from self._list(index).between(low, high)

    def _search(self, index: int, chunk: int) -> array[int]:
        """Return what `Image.search` finds in a chunk of a file."""
        references = self._searched.get((index, chunk))
        if references is None:
            image = self._images[index]
            assert image is not None
            low = chunk * CHUNK
            data = self._read(index, low, min(low + CHUNK, self._lengths[index]))
            references = image.search(data, low)
            if len(self._searched) >= _CHUNKS:
                del self._searched[next(iter(self._searched))]
            self._searched[index, chunk] = references
        return references

    def _list(self, index: int) -> Listed:
        """Return what a file lists."""
        listing = self._lists.get(index)
        if listing is None:
            image = self._images[index]
            assert image is not None
            listing = listed.references(image, partial(self._read, index))
            held = sum(map(len, self._lists.values()))
            while self._lists and held + len(listing) > _LISTED:
                held -= len(self._lists.pop(next(iter(self._lists))))
            self._lists[index] = listing
        return listing

    def _read(self, index: int, low: int, high: int) -> bytes:
        """Return the bytes [low, high) of a file.

        Raises:
            ValueError: they are not as many.
        """
        start = self._starts[index]
        data = self._bytes(start + low, start + high)
        if len(data) != high - low:
            raise ValueError("read gave another number of bytes")
        return data


def numbers(column: Column) -> memoryview[int]:
    """Return the int64 numbers in any buffer.

    Raises:
        ValueError: the last one is not whole.
    """
    view = memoryview(column)
    if view.nbytes % 8:
        raise ValueError("not a column of int64")
    return view.cast("B").cast("q")


def shifted(column: Column, less: int) -> bytes:
    """Return a column, each number so much less."""
    return array("q", [number - less for number in numbers(column)]).tobytes()


def target_of(image: Image, data: bytearray, at: int, reference: Reference) -> int:
    """Return the old address that a reference means; its bytes are at `at`."""
    place, kind, base = reference
    if kind == ABSOLUTE:
        target: int = _U64.unpack_from(data, at)[0]
        return target
    if kind == STEP:
        own = image.address(place)
        assert own is not None
        return arm.target(data, at, base, own)
    value: int = (_U32 if kind in {BACK, PLAIN} else _S32).unpack_from(data, at)[0]
    own_address = image.address(place)
    assert own_address is not None
    if kind == RELATIVE:
        return own_address + 4 + value
    return own_address - value if kind == BACK else base + value
