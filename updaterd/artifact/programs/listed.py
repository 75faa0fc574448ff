# SPDX-License-Identifier: Apache-2.0
"""The references that programs list: frames, tables, and Go's functions.

The Python twin of `image_list` in `native/listed.c`; see `image`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from struct import Struct

from updaterd.artifact.programs.image import (
    BACK,
    FRAMES,
    FUNCTIONS,
    MAX_LISTED,
    OFFSET,
    PLAIN,
    RELATIVE,
    TABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from updaterd.artifact.programs.image import Image

    Read = Callable[[int, int], bytes]
    """Returns exactly the bytes [low, high) of one file."""

_WINDOW = 1 << 16  # bytes that a file is read in
_U32, _TWO = Struct("<I"), Struct("<II")
_FUNCTION = 44  # bytes of a function's part that all have
_MAX_TABLES, _MAX_DATAS = 16, 12  # and words that follow it


def references(image: Image, read: Read) -> Listed:
    """Return what a program lists.

    Args:
        image: of the program.
        read: reads its file.

    Raises:
        ValueError: it lists too much.
    """
    out = Listed(image)
    for kind, start, length, *parameters in image.regions:
        end = start + length
        if kind == FRAMES:
            _frames(out, _Window(read, end), start, end)
        elif kind == TABLE:
            base = out.base(parameters[0])
            for at in range(start, end - 3, 4):
                out.add(at, OFFSET, base)
        elif kind == FUNCTIONS:
            start_address = image.address(start) or 0
            _functions(out, read, (start, end), (start_address, *parameters))
    return out


class Listed:
    """References that a program lists; none overlaps another."""

    def __init__(self, image: Image) -> None:
        """Begin with the entries of a program's jump tables, which take no room."""
        self._image = image
        self._starts = image.table_starts
        self._room = MAX_LISTED - sum(image.table_entries)
        self._places = array("I")
        self._codes = array("H")  # 8 * base + kind
        self._bases: list[int] = [0]

    def __len__(self) -> int:
        """Return how many take memory."""
        return len(self._places)

    def base(self, address: int) -> int:
        """Return a number for what offsets are counted from."""
        self._bases.append(address)
        return len(self._bases) - 1

    def add(self, place: int, kind: int, base: int = 0) -> None:
        """Append a reference; places ascend.

        Raises:
            ValueError: there are too many.
        """
        if len(self._places) >= self._room:
            raise ValueError("an image lists too many references")
        self._places.append(place)
        self._codes.append(8 * base + kind)

    def between(self, low: int, high: int) -> Iterator[tuple[int, int, int]]:
        """Yield place, kind and base of what lies wholly in [low, high)."""
        first = bisect_left(self._places, low)
        last = bisect_right(self._places, high - 4)
        for place, code in zip(
            self._places[first:last], self._codes[first:last], strict=True
        ):
            yield place, code & 7, self._bases[code >> 3]
        for index in range(
            max(bisect_right(self._starts, low) - 1, 0),
            bisect_left(self._starts, high),
        ):
            offset, entries = self._starts[index], self._image.table_entries[index]
            base = self._image.address(offset) or 0
            skipped = max(low - offset + 3, 0) // 4
            end = min(offset + 4 * entries, high - 3)
            for place in range(offset + 4 * skipped, end, 4):
                yield place, OFFSET, base


class _Window:
    """Reads a file front to back, a window at a time."""

    def __init__(self, read: Read, end: int) -> None:
        self._read = read
        self._end = end
        self._at = 0
        self._data = b""

    def take(self, at: int, size: int) -> bytes:
        """Return `size` bytes at `at`; all of them lie before the end."""
        first = at - self._at
        if first < 0 or first + size > len(self._data):
            self._data = self._read(at, min(at + max(size, _WINDOW), self._end))
            self._at, first = at, 0
        return self._data[first : first + size]


def _frames(out: Listed, file: _Window, start: int, end: int) -> None:
    """List what the entries of an `.eh_frame` refer to: CIE, code, LSDA."""
    at = start
    while at + 8 <= end:
        length, identity = _TWO.unpack(file.take(at, 8))
        if length < 4 or length == 0xFFFF_FFFF or at + 4 + length > end:
            return
        if identity and length >= 12:
            out.add(at + 4, BACK)
            out.add(at + 8, RELATIVE)
            if length >= 17:
                augmentation = file.take(at + 16, 5)
                if augmentation[0] == 4 and any(augmentation[1:]):
                    out.add(at + 17, RELATIVE)
        at += 4 + length


def _functions(
    out: Listed, read: Read, span: tuple[int, int], parameters: Sequence[int]
) -> None:
    """List what Go's table of functions refers to, and each function's part of it.

    Args:
        out: the list.
        read: reads the file.
        span: the region.
        parameters: its own address, then those of the region.
    """
    start, end = span
    start_address, count, text, names, pc_tables, data = parameters
    base_text, base_here, base_names, base_tables, base_data = map(
        out.base, (text, start_address, names, pc_tables, data)
    )
    for at in range(start, start + 8 * count, 8):
        out.add(at, PLAIN, base_text)
        out.add(at + 4, PLAIN, base_here)
    entries, parts = _Window(read, end), _Window(read, end)
    after = start + 8 * count
    for index in range(count):
        at = start + _U32.unpack(entries.take(start + 8 * index + 4, 4))[0]
        if at < after or at + _FUNCTION > end:
            continue
        head = parts.take(at, _FUNCTION)
        out.add(at, PLAIN, base_text)
        out.add(at + 4, PLAIN, base_names)
        for q in (16, 20, 24):
            if any(head[q : q + 4]):
                out.add(at + q, PLAIN, base_tables)
        tables = min(_U32.unpack_from(head, 28)[0], _MAX_TABLES)
        datas = min(head[43], _MAX_DATAS)
        for j in range(tables + datas):
            q = at + _FUNCTION + 4 * j
            if q + 4 > end:
                break
            value = parts.take(q, 4)
            if j < tables and any(value):
                out.add(q, PLAIN, base_tables)
            elif j >= tables and data and value != b"\xff\xff\xff\xff":
                out.add(q, PLAIN, base_data)
        after = at + _FUNCTION + 4 * (tables + datas)
