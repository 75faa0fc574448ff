# SPDX-License-Identifier: Apache-2.0
"""The images stream: what a delta says of the programs whose references it re-aims.

All numbers varints (docs/formats.md):
    how many images, then for each
    file: gap; the sources in virtual order, then all made files in stream order
    segments: count, then offset, address, bytes in the file, bytes in memory, code
    regions: count, then kind, gap, length and what the kind needs
    tables: count, then all gaps, then all numbers of entries
"""

from __future__ import annotations

from array import array

from updaterd.artifact import varint
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    T = TypeVar("T")

    Rows = tuple[bytes, bytes, bytes]
    """Segments, regions and tables of a program, as `Image` takes them."""

MAX_BYTES = 4 * 2**20
"""Longest stream: a program of 100 MB takes about 100 KiB."""
MAX_IMAGES = 4096
MAX_ALL_REGIONS, MAX_ALL_TABLES = 1 << 16, 1 << 18
"""Of all images together: 8 MiB of memory."""

_MAX_SEGMENTS, _MAX_REGIONS, _MAX_TABLES = 32, 256, 1 << 16  # as `image`'s
_PARAMETERS = (0, 0, 0, 1, 5, 0)  # of code, words, frames, table, functions, arm
_ROOM = 5  # for them in a row
_SEGMENT, _REGION, _TABLE = 5, 3 + _ROOM, 2
ARM = 5  # the kind of a region


def encode(images: Mapping[int, Rows]) -> bytes:
    """Return the stream.

    Args:
        images: rows of native int64, by the file's index: the sources in virtual
            order, then all made files in stream order.
    """
    out = [varint.pack(len(images))]
    expected = 0
    for file, (segments, regions, tables) in sorted(images.items()):
        out.append(varint.pack(file - expected))
        expected = file + 1
        numbers = _numbers(segments)
        out.append(varint.pack(len(numbers) // _SEGMENT, *numbers))
        out.append(_packed_regions(_numbers(regions)))
        rows = _numbers(tables)
        starts, entries = rows[0::2], rows[1::2]
        ends = [s + 4 * n for s, n in zip(starts, entries, strict=True)]
        gaps = [s - end for s, end in zip(starts, [0, *ends], strict=False)]
        out.append(varint.pack(len(starts), *gaps, *entries))
    return b"".join(out)


def _packed_regions(rows: Sequence[int]) -> bytes:
    out = [varint.pack(len(rows) // _REGION)]
    end = 0
    for at in range(0, len(rows), _REGION):
        kind, start, length, *parameters = rows[at : at + _REGION]
        needed = parameters[: _PARAMETERS[kind]]
        out.append(varint.pack(kind, start - end, length, *needed))
        end = start + length
    return b"".join(out)


def _numbers(rows: bytes) -> array[int]:
    numbers = array("q")
    numbers.frombytes(rows)
    return numbers


def decode(
    data: bytes,
    lengths: Sequence[int],
    image: Callable[[bytes, bytes, bytes], T],
    *,
    arm: bool = False,
) -> dict[int, T]:
    """Return the images in a stream, by the file's index.

    Args:
        data: the stream.
        lengths: of the files: the sources, then all made files in stream order.
        image: makes one of its rows; ValueError: they are impossible.
        arm: there may be regions of AArch64 code.

    Raises:
        MalformedError: cut short, beyond a limit, or not of these files.
    """
    cursor = varint.Cursor(data, "images")
    out: dict[int, T] = {}
    file = -1
    region_bytes = table_bytes = 0
    for _ in range(cursor.number(MAX_IMAGES)):
        file += 1 + cursor.number()
        if file >= len(lengths):
            raise MalformedError(f"images: file {file} of {len(lengths)}")
        segments = _segments(cursor, lengths[file])
        regions, tables = _regions(cursor, arm=arm), _tables(cursor)
        region_bytes += len(regions)
        table_bytes += len(tables)
        if (
            region_bytes > 8 * _REGION * MAX_ALL_REGIONS
            or table_bytes > 8 * _TABLE * MAX_ALL_TABLES
        ):
            raise MalformedError("images: too many regions or tables in all")
        try:
            out[file] = image(segments, regions, tables)
        except ValueError as error:
            raise MalformedError(f"images: {error}") from error
    cursor.end()
    return out


def _segments(cursor: varint.Cursor, length: int) -> bytes:
    """Return the rows of the next segments.

    Raises:
        MalformedError: there are too many, or one is not in the file.
    """
    numbers = array("q")
    for _ in range(cursor.number(_MAX_SEGMENTS)):
        row = [cursor.number() for _ in range(_SEGMENT)]
        if row[0] + row[2] > length:
            raise MalformedError("images: a segment reaches over the end of its file")
        numbers.extend(row)
    return numbers.tobytes()


def _regions(cursor: varint.Cursor, *, arm: bool) -> bytes:
    """Return the rows of the next regions.

    Raises:
        MalformedError: there are too many, or one is of an unknown kind.
    """
    numbers = array("q")
    end = 0
    for _ in range(cursor.number(_MAX_REGIONS)):
        kind = cursor.number(ARM if arm else ARM - 1)
        start = _later(end, cursor.number())
        length = cursor.number()
        end = _later(start, length)
        needed = [cursor.number() for _ in range(_PARAMETERS[kind])]
        numbers.extend((kind, start, length, *needed, *[0] * (_ROOM - len(needed))))
    return numbers.tobytes()


def _tables(cursor: varint.Cursor) -> bytes:
    """Return the rows of the next tables.

    Raises:
        MalformedError: there are too many.
    """
    count = cursor.number(_MAX_TABLES)
    gaps = cursor.numbers(count)
    numbers = array("q", bytes(16 * count))
    end = 0
    for at, (gap, entries) in enumerate(zip(gaps, cursor.numbers(count), strict=True)):
        start = end + gap
        end = start + 4 * entries
        if end > varint.MAX:
            _later(end, 0)
        numbers[2 * at] = start
        numbers[2 * at + 1] = entries
    return numbers.tobytes()


def _later(place: int, by: int) -> int:
    """Return what comes so many bytes after a place.

    Raises:
        MalformedError: no file is that long.
    """
    if place + by > varint.MAX:
        raise MalformedError("images: a place beyond every file")
    return place + by
