# SPDX-License-Identifier: Apache-2.0
"""Copy/add operations: blocks of columns, checked whole before any is applied.

An operation is bsdiff's: take `length` bytes of the old data with the diff stream
added, then `extra` bytes of the extra stream, then move by `skip` in the old data.
A block holds up to 4096 of them, column by column and byte plane by byte plane:

    count u16 - 1, width of length u8, of extra u8, of skip u8
    planes of length, lowest first; planes of extra; planes of |skip|; signs of skip

A plane is one byte of each operation. Planes compress like varints, and turn into
columns by slice assignment: no Python code runs per operation.
"""

from __future__ import annotations

import sys
from array import array
from itertools import accumulate
from operator import add, mul

from updaterd.artifact.apply.blocks import MAX_BLOCK, Block, head
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from updaterd.artifact.codecs import Stream

_MOST = 2**63 - 1
_SIGN = bytes([1, 0xFF, *bytes(254)])  # as signed bytes: 1 and -1


def _width(values: Sequence[int]) -> int:
    return (max(values, default=0).bit_length() + 7) // 8


def _column(values: Sequence[int], width: int) -> bytes:
    raw = array("Q", values)
    if sys.byteorder == "big":
        raw.byteswap()
    data = raw.tobytes()
    return b"".join(data[plane::8] for plane in range(width))


def encode(operations: Sequence[tuple[int, int, int]]) -> Iterator[bytes]:
    """Yield the blocks of operations (length, extra, skip)."""
    for first in range(0, len(operations), MAX_BLOCK):
        part = operations[first : first + MAX_BLOCK]
        lengths, extras, skips = zip(*part, strict=True)
        sizes = [abs(skip) for skip in skips]
        widths = _width(lengths), _width(extras), _width(sizes)
        yield (len(part) - 1).to_bytes(2, "little") + bytes(widths)
        yield _column(lengths, widths[0])
        yield _column(extras, widths[1])
        yield _column(sizes, widths[2])
        yield bytes(skip < 0 for skip in skips)


def decode(stream: Stream, position: int, old_size: int) -> Block:
    """Return the next block of a control stream.

    Args:
        stream: at a block's start.
        position: in the old data, where the block before ended.
        old_size: bytes of the old data.

    Raises:
        MalformedError: cut short, or an operation leaves the old data.
    """
    count, widths = head(stream)
    lengths, extras, sizes = (_read(stream, count, width) for width in widths)
    signs = stream.read(count)
    if signs.strip(b"\0\1"):
        raise MalformedError("operations: a sign is neither 0 nor 1")
    skips = array("q", map(mul, sizes, array("b", signs.translate(_SIGN))))
    return _checked(lengths, extras, skips, position, old_size)


def _read(stream: Stream, count: int, width: int) -> array[int]:
    """Return the next column: `width` planes of `count` bytes."""
    data = bytearray(8 * count)
    for plane in range(width):
        data[plane::8] = stream.read(count)
    column = array("q", bytes(data))
    if sys.byteorder == "big":
        column.byteswap()
    return column


def check(control: bytes, position: int, old_size: int) -> Block:
    """Return bsdiff's control triples as a block, checked against the old data.

    Raises:
        MalformedError: a length is negative, or an operation leaves the old data.
    """
    words = array("q", control)
    if sys.byteorder == "big":
        words.byteswap()
    lengths, extras, skips = words[0::3], words[1::3], words[2::3]
    if min(lengths) < 0 or min(extras) < 0:
        raise MalformedError("operations: a length is negative")
    if min(skips) < 0:  # sign and magnitude, as bsdiff writes them
        skips = array("q", (skip if skip >= 0 else -(skip + 2**63) for skip in skips))
    return _checked(lengths, extras, skips, position, old_size)


def _checked(
    lengths: array[int],
    extras: array[int],
    skips: array[int],
    position: int,
    old_size: int,
) -> Block:
    starts = list(accumulate(map(add, lengths, skips), initial=position))
    end = starts.pop()
    ends = list(map(add, starts, lengths))
    if min(starts) < 0 or max(ends) > old_size or not 0 <= end <= old_size:
        raise MalformedError("operations: one reads outside the old data")
    offsets = list(accumulate(map(add, lengths, extras), initial=0))
    if offsets[-1] > _MOST:
        raise MalformedError("operations: a block makes too much")
    # One may only move (the first does); blocks of idle ones would just burn time.
    if offsets[-1] < max(1, len(starts) - 1):
        raise MalformedError("operations: a block makes nothing")
    return Block(
        array("q", starts), array("q", ends), lengths, extras, array("q", offsets), end
    )
