# SPDX-License-Identifier: Apache-2.0
"""What programs are made of, and where their references are: x86-64, AArch64.

The Python twin of `native/image.c`: it serves where updaterd was built without a
compiler, and the tests compare the two. docs/formats.md ("References") is what both
follow to the letter: writer and reader must find exactly the same.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_right
from itertools import pairwise
from struct import Struct

from updaterd.artifact.programs import arm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CODE, WORDS, FRAMES, TABLE, FUNCTIONS, ARM = range(6)
"""Kinds of regions: code (of x86-64, of AArch64) and words are searched, the others
list references."""
RELATIVE, ABSOLUTE, OFFSET, BACK, PLAIN, STEP = range(1, 7)
"""Kinds of references; PLAIN is an OFFSET without a sign, a STEP is in AArch64 code."""

CHUNK = 1 << 14
"""Bytes of a file that are searched by themselves."""
MAX_SEGMENTS, MAX_REGIONS, MAX_TABLES = 32, 256, 1 << 16
MAX_LISTED = 1 << 20
"""References that one program may list."""

_LARGEST = 1 << 53
_PARAMETERS = 5
_BRANCHES, _LONG = (0xE8, 0xE9), 0x0F  # call and jump; 0F 8x is a jump if ...
_OTHERS = (0x05, 0x0D, 0x15, 0x1D, 0x25, 0x2D, 0x35, 0x3D)  # ModRM of an address
_LEAST = 4096  # no program has anything below
_S32 = Struct("<i")


def _rows(data: bytes, width: int) -> list[tuple[int, ...]]:
    """Return rows of native int64 numbers.

    Raises:
        ValueError: the last row is not whole.
    """
    numbers = array("q")
    numbers.frombytes(data)
    if len(numbers) % width:
        raise ValueError("a row is cut short")
    return list(zip(*[iter(numbers)] * width, strict=True))


class Image:
    """How a program's file becomes memory, and where it may hold references."""

    def __init__(self, segments: bytes, regions: bytes, tables: bytes) -> None:
        """Check what a bundle says of a program.

        Args:
            segments: rows of native int64: offset, address, bytes in the file, bytes
                in memory, 1 for code.
            regions: rows of kind, start, length, five parameters.
            tables: rows of offset and entries, of jump tables.

        Raises:
            ValueError: it is impossible, or more than an image may hold.
        """
        self.segments = _rows(segments, 5)
        self.regions = _rows(regions, 3 + _PARAMETERS)
        numbers = array("q")
        numbers.frombytes(tables)
        if len(numbers) % 2:
            raise ValueError("a row is cut short")
        self.table_starts, self.table_entries = numbers[0::2], numbers[1::2]
        self._check_segments()
        count = self._check_regions() + self._check_tables()
        if count > MAX_LISTED:
            raise ValueError("an image lists too many references")
        self.end = max(offset + stored for offset, _, stored, _, _ in self.segments)
        lows = [address for _, address, _, _, _ in self.segments]
        highs = [address + memory for _, address, _, memory, _ in self.segments]
        self.low, self.high = min(lows), max(highs)
        code = [segment for segment in self.segments if segment[4]]
        self.code_low = min((address for _, address, *_ in code), default=0)
        self.code_high = max((s[1] + s[3] for s in code), default=0)
        self._calls = _calls(self.high - self.low)

    def _check_segments(self) -> None:
        """Check that segments are sane and apart from each other.

        Raises:
            ValueError: they are not.
        """
        if not 1 <= len(self.segments) <= MAX_SEGMENTS:
            raise ValueError("an image has too few or too many segments")
        for offset, address, stored, memory, code in self.segments:
            if (
                min(offset, address, stored) < 0
                or memory < stored
                or offset + stored >= _LARGEST
                or address + memory >= _LARGEST
                or code not in {0, 1}
            ):
                raise ValueError("an image has an impossible segment")
        if any(a[0] + a[2] > b[0] for a, b in pairwise(self.segments)):
            raise ValueError("an image has segments out of order")
        spans = sorted((address, memory) for _, address, _, memory, _ in self.segments)
        if any(sum(a) > b[0] for a, b in pairwise(spans)):
            raise ValueError("an image has overlapping segments")

    def _check_regions(self) -> int:
        """Return how many references regions list, as far as they say.

        Raises:
            ValueError: one is impossible.
        """
        if len(self.regions) > MAX_REGIONS:
            raise ValueError("an image has too many regions")
        count = end = 0
        for kind, start, length, *parameters in self.regions:
            if (
                not CODE <= kind <= ARM
                or start < end
                or not self._holds(start, length)
                or min(parameters) < 0
                or max(parameters) >= _LARGEST
            ):
                raise ValueError("an image has an impossible region")
            if kind == TABLE:
                count += length // 4
            elif kind == FUNCTIONS:
                if 8 * parameters[0] > length:
                    raise ValueError("an image has more functions than fit")
                count += 2 * parameters[0]
            end = start + length
        kinds = {row[0] for row in self.regions}
        self.arm = ARM in kinds
        if self.arm and CODE in kinds:
            raise ValueError("an image has code of two processors")
        return count

    def _check_tables(self) -> int:
        """Return how many entries the tables have.

        Raises:
            ValueError: one is impossible.
        """
        if len(self.table_starts) > MAX_TABLES:
            raise ValueError("an image has too many tables")
        apart = [
            (start, length) for kind, start, length, *_ in self.regions if kind != WORDS
        ]
        starts = [start for start, _ in apart]
        count = end = 0
        for offset, entries in zip(self.table_starts, self.table_entries, strict=True):
            if offset < end or entries < 1 or not self._holds(offset, 4 * entries):
                raise ValueError("an image has an impossible table")
            end = offset + 4 * entries
            # Regions ascend: only the last one that begins before the end can overlap.
            last = bisect_right(starts, end - 1) - 1
            if last >= 0 and sum(apart[last]) > offset:
                raise ValueError("an image has a table in another region")
            count += entries
        return count

    def _holds(self, start: int, length: int) -> bool:
        """Tell whether one segment stores all of [start, start + length)."""
        return length >= 0 and any(
            offset <= start < offset + stored and start + length <= offset + stored
            for offset, _, stored, _, _ in self.segments
        )

    def address(self, offset: int) -> int | None:
        """Return where a byte of the file comes to lie; None: nowhere."""
        for begin, address, stored, _, _ in self.segments:
            if begin <= offset < begin + stored:
                return address + offset - begin
        return None

    def segment(self, address: int) -> int | None:
        """Return the index of the segment that an address lies in."""
        for index, (_, begin, _, memory, _) in enumerate(self.segments):
            if begin <= address < begin + memory:
                return index
        return None

    def search(self, data: bytes, at: int) -> array[int]:
        """Return the references found in a chunk, as `unpacked` takes them.

        Twice the place, plus 1 for words; with AArch64, where places are multiples of
        four, four times the place, plus how it is made (`arm`), 0 for words.

        Args:
            data: of the chunk; shorter than CHUNK at the file's end only.
            at: where it lies in the file, a multiple of CHUNK.
        """
        places = array("H")
        for kind, start, length, *_ in self.regions:
            low, high = max(start - at, 0), min(start + length - at, len(data))
            if low >= high or kind not in {CODE, ARM, WORDS}:
                continue
            if kind == WORDS:
                words = self._words(data, low, high)
                places.extend(4 * p if self.arm else 2 * p + 1 for p in words)
                continue
            address = self.address(start)
            assert address is not None
            shift = address - start + at
            if kind == CODE:
                places.extend(2 * place for place in self._code(data, low, high, shift))
            else:
                spans = (self.code_low, self.code_high), (self.low, self.high)
                places.extend(arm.search(data, low, high, shift, spans))
        return places

    def unpacked(self, code: int) -> tuple[int, int, int]:
        """Return a find's place in the chunk, its kind, and how a STEP is made."""
        if self.arm:
            how = code & 15
            return code >> 4 << 2, STEP if how else ABSOLUTE, how
        return code >> 1, ABSOLUTE if code & 1 else RELATIVE, 0

    def _words(self, data: bytes, low: int, high: int) -> Iterator[int]:
        """Yield places of aligned pointers in [low, high)."""
        first = (low + 7) // 8 * 8
        words = array(
            "Q", data[first : high - (high - first) % 8] if first < high else b""
        )
        if sys.byteorder == "big":
            words.byteswap()
        least, most = max(_LEAST, self.low), self.high
        for index, word in enumerate(words):
            if least <= word < most:
                yield first + 8 * index

    def _code(self, data: bytes, low: int, high: int, shift: int) -> Iterator[int]:
        """Yield places of relative references in [low, high).

        Args:
            data: of the chunk.
            low: where to begin.
            high: what no reference reaches over.
            shift: what makes an address of a place in `data`.
        """
        code_low, code_high = self.code_low, self.code_high
        after = low  # the last reference; what lies before it is passed over
        for match in self._calls.finditer(data, low, high):
            i = match.start()
            if i < after:
                continue
            byte = data[i]
            place = i + 2 if byte == _LONG else i + 1
            if place + 4 > high:
                continue
            (value,) = _S32.unpack_from(data, place)
            target = place + shift + 4 + value
            if byte in _OTHERS:
                good = i > low and value != 0 and self.low <= target < self.high
            else:
                good = code_low <= target < code_high
            if good:
                yield place
                after = place + 4


def _calls(span: int) -> re.Pattern[bytes]:
    """Return what finds where relative references may begin.

    The value's highest byte says how far away the target is, about: most of what only
    looks like a reference is left out by it.

    Args:
        span: bytes of memory that the program takes.
    """
    reach = min((span + 16) >> 24, 127)
    tops = [top & 0xFF for top in range(-reach - 1, reach + 1)]
    far = b"..." + (b"." if len(tops) > 255 else b"[%b]" % _escaped(tops))
    starts = _escaped([*_BRANCHES, *_OTHERS, _LONG])
    long = b"(?<=\\x0f)[\\x80-\\x8f]" + far
    return re.compile(b"[%b](?=%b|(?<!\\x0f)%b)" % (starts, long, far), re.DOTALL)


def _escaped(numbers: Iterable[int]) -> bytes:
    return b"".join(b"\\x%02x" % number for number in numbers)
