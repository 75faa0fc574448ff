# SPDX-License-Identifier: Apache-2.0
"""A block of copy/add operations as columns, ready to apply: see operations."""

from __future__ import annotations

from bisect import bisect_right

from updaterd.core.frozen import record
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from updaterd.artifact.codecs import Stream

    Column = memoryview[int] | array[int]
    """64-bit numbers, signed, in the machine's own order."""

MAX_BLOCK = 1 << 12
_HEAD = 5
_WIDEST = 6  # bytes: files up to 2^48


@record
class Block:
    """Operations ready to apply, all checked: 40 bytes for each.

    Attributes:
        starts: where each begins to read the old data.
        ends: where each ends to read them.
        lengths: bytes each takes from the old data, from the diff stream too.
        extras: bytes each takes from the extra stream.
        offsets: bytes made before each, and after the last: one item more.
        end: position in the old data after the last.
    """

    starts: Column
    ends: Column
    lengths: Column
    extras: Column
    offsets: Column
    end: int

    def fits(self, first: int, most: int) -> int:
        """Return the index after the last one that stays within `most` bytes."""
        return bisect_right(self.offsets, self.offsets[first] + most) - 1


def head(stream: Stream) -> tuple[int, bytes]:
    """Return how many operations the next block has, and the widths of its columns.

    Raises:
        MalformedError: cut short, or too many or too wide.
    """
    data = stream.read(_HEAD)
    count = int.from_bytes(data[:2], "little") + 1
    widths = data[2:]
    if count > MAX_BLOCK or max(widths) > _WIDEST:
        raise MalformedError("operations: a block is too large")
    return count, widths
