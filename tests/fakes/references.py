# SPDX-License-Identifier: Apache-2.0
"""What only the release side does with references, in Python: an oracle for the C."""

from array import array
from bisect import bisect_right
from struct import Struct

from updaterd.artifact.programs import arm
from updaterd.artifact.programs.image import (
    ABSOLUTE,
    BACK,
    CHUNK,
    PLAIN,
    STEP,
    WORDS,
)
from updaterd.artifact.programs.projector import Image, Projector, target_of

__all__ = ["Image", "Oracle", "tables"]

_S32 = Struct("<i")
_NEAR = 1 << 18


class Oracle(Projector):
    """The Projector in Python with `mask` and `label`."""

    def mask(self, data: bytearray, index: int) -> None:
        """Write over a file's references what they are, and nothing else."""
        start = self._begin(data, index)
        for place, kind, base in self._all(index):
            if kind == STEP:
                at, ahead = start + place, arm.before(base)
                arm.put(data, at, base, 0, 0, 0)
                if ahead:
                    arm.put(data, at - ahead, arm.ALONE, 0, 0, 0)
                continue
            mark = {PLAIN: 3, BACK: 4}.get(kind, kind)
            size = 8 if kind == ABSOLUTE else 4
            at = start + place
            data[at : at + size] = mark.to_bytes(size, "little")

    def label(self, data: bytearray, index: int, aimed: bool) -> None:
        """Write over a file's references what they refer to."""
        start = self._begin(data, index)
        if aimed and not self._aimed:
            raise ValueError("aim comes first")
        moves = self._moves.get(index)
        for place, kind, base in self._all(index):
            at = start + place
            target = target_of(self._images[index], data, at, (place, kind, base))
            if aimed and moves is not None:
                moved = moves.address(target)
                target = target if moved is None else moved
            if kind == STEP:
                arm.put(data, at, base, target, 0, 0)
                continue
            size = 8 if kind == ABSOLUTE else 4
            data[at : at + size] = (target % 2 ** (8 * size)).to_bytes(size, "little")

    def _begin(self, data, index):
        if len(data) != self._size or self._images[index] is None:
            raise ValueError("not the whole address space, or no such image")
        return self._starts[index]

    def _all(self, index):
        self._list(index)  # before anything is changed
        return list(self._references(index, 0, self._lengths[index]))


def tables(data: bytes, image: Image) -> bytes:
    """Return the jump tables of a program: rows of native int64, offset and entries.

    Where code refers to what is no code, offsets to code near the reference may follow.
    """
    named: dict[int, int] = {}  # offset of a table: lowest address that refers to it
    for low in range(0, len(data), CHUNK):
        for found in image.search(data[low : low + CHUNK], low):
            place, kind, how = image.unpacked(found)
            place += low
            address = image.address(place)
            if kind == STEP:
                if data[place + 3] not in {0x91, 0x10, 0x30, 0x50, 0x70}:
                    continue  # neither ADD nor ADR
                target = arm.target(data, place, how, address)
            else:
                target = address + 4 + _S32.unpack_from(data, place)[0]
            number = None if kind == ABSOLUTE else image.segment(target)
            if number is None or image.code_low <= target < image.code_high:
                continue
            offset, begin, stored, _, _ = image.segments[number]
            offset += target - begin
            if target < begin + stored and offset % 4 == 0:
                named[offset] = min(address, named.get(offset, address))
    rows = array("q")
    offsets = sorted(named)
    for offset, following in zip(offsets, [*offsets[1:], len(data)], strict=False):
        count = _entries(data, image, (offset, following), named[offset])
        if count:
            rows.extend((offset, count))
    return rows.tobytes()


def _entries(data, image, span, near):
    """Count the entries of the table that begins a span, named from address `near`."""
    offset, following = span
    others = [
        (start, start + length)
        for kind, start, length, *_ in image.regions
        if kind != WORDS
    ]
    index = bisect_right(others, (offset, len(data)))
    if index and others[index - 1][1] > offset:
        return 0
    base = image.address(offset)
    ends = [begin + stored for begin, _, stored, _, _ in image.segments]
    limit = min(following, *(end for end in ends if end > offset), len(data))
    if index < len(others):
        limit = min(limit, others[index][0])
    count = 0
    for at in range(offset, limit - 3, 4):
        target = base + _S32.unpack_from(data, at)[0]
        inside = image.code_low <= target < image.code_high
        if not inside or abs(target - near) > _NEAR:
            break
        count += 1
    return count
