# SPDX-License-Identifier: Apache-2.0
"""Find what of the new bytes is already in the old ones.

bsdiff4 is always there; HDiffPatch (extra `release`) finds better matches, faster
and in a third of the memory, and is used when it is installed. Both are reduced to
covers, so the bundle has the same format either way.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import cast

import bsdiff4.core

from updaterd.errors import BrokenError

Cover = tuple[int, int, int]
"""Place in the new bytes, place in the old ones, length."""
Operation = tuple[int, int, int]
"""Length, extra, skip: see artifact/apply/operations.py."""

HDIFFPATCH, BSDIFF = "hdiffpatch", "bsdiff4"

GROUND = 32 << 20
"""Bytes that a process takes, whatever it matches; measured: 26 MiB."""
OWN = 48 << 20
"""And whoever starts them: 31 MiB, and more with the listings of large trees."""

_LEAST_ROOM = 6 << 20
_SHORTEST = 24
"""Shorter covers of bsdiff4 cost more than they save: between 8 and 48, this was best
on three of the four pairs of docs/performance.md. HDiffPatch weighs its own."""
_SIGN = 1 << 63
_NEGATE = bytes(-value & 0xFF for value in range(256))
_TRIPLE = struct.Struct("<QQQ")
_HEADER_NUMBERS = 11
_PIECE = 1 << 20
PART = 1 << 18
"""Bytes that references are re-aimed in at a time, at most: part of the format."""

Change = Callable[[bytearray, Sequence[Cover]], None]


@cache
def _hdiffpatch() -> ModuleType | None:
    with suppress(ImportError):
        return import_module("hdiffpatch")
    return None


def installed() -> str:
    """Return the name of the better matcher that is there."""
    return BSDIFF if _hdiffpatch() is None else HDIFFPATCH


def memory(matcher: str, old: int, new: int) -> int:
    """Return about how many bytes of memory matching takes, with its process.

    Measured: HDiffPatch has a suffix array of four bytes an old byte, and both sides.
    What is subtracted afterwards takes the place of the array.

    Args:
        matcher: by name.
        old: bytes to match with.
        new: bytes to match.
    """
    if matcher == BSDIFF:
        return 18 * old + 4 * new
    return GROUND + max(5 * old + new, old + 3 * new)


def limit(matcher: str, budget: int) -> int:
    """Return how many old bytes to match with as many new ones, alone in a budget.

    Args:
        matcher: by name.
        budget: bytes of memory.
    """
    if matcher == BSDIFF:
        return budget // memory(matcher, 1, 1)
    return room(budget) // 6


def room(budget: int) -> int:
    """Return what is left of a budget for the bytes of one task: two processes run.

    Never so little that a piece could not be matched with what is around its place.
    """
    return max(_LEAST_ROOM, budget - OWN - GROUND)


def windows(old: int, new: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield what to match with what, so that HDiffPatch takes so much memory.

    Both sides are read from elsewhere, a window at a time. Old bytes are matched whole
    as long as their suffix array fits; else those around the same place.

    Args:
        old: bytes to match with.
        new: bytes to match.
        size: of the memory, in bytes.

    Yields:
        Place and length of new bytes, place and length of old ones.
    """
    if 5 * old + new <= size:
        yield 0, new, 0, old
        return
    width = min(old, size * 2 // 11)
    step = max(1, size - 5 * width if width == old else width // 2)
    for low in range(0, new, step):
        count = min(step, new - low)
        middle = (2 * low + count) * old // (2 * new)
        first = min(max(0, middle - width // 2), old - width)
        yield low, count, first, width


def find(old: bytes, new: bytes, matcher: str) -> Iterator[Cover]:
    """Return what can be copied to make `new` from `old`, by place in `new`.

    Raises:
        BrokenError: the matcher is not there, or of an unknown version.
    """
    if not old or not new:
        return iter(())
    if matcher == BSDIFF:
        return (cover for cover in bsdiff(old, new) if cover[2] >= _SHORTEST)
    module = _hdiffpatch()
    if module is None:
        raise BrokenError(
            "hdiffpatch is not installed", do="pip install 'updaterd[release]'"
        )
    return _parse(module.diff(old, new, compression=None, validate=False))


def bsdiff(old: bytes, new: bytes) -> Iterator[Cover]:
    """Yield what bsdiff4 would copy."""
    control = cast("bytes", bsdiff4.core.diff(old, new)[0])
    source = target = 0
    for length, extra, skip in _TRIPLE.iter_unpack(control):
        if length:
            yield target, source, length
        target += length + extra
        source += length + (skip if skip < _SIGN else _SIGN - skip)


def _parse(diff: bytes) -> Iterator[Cover]:
    """Yield the covers of an uncompressed HDIFF13 diff.

    After the type and a zero byte: eleven numbers, the third of which counts the
    covers; then each cover's old place (from where the last one ended, signed),
    new place (from there too) and length. Numbers are big-endian base 128.

    Raises:
        BrokenError: the matcher speaks another format.
    """
    if not diff.startswith(b"HDIFF13&\0"):
        raise BrokenError(
            "the installed hdiffpatch makes an unknown format",
            do="pip install 'hdiffpatch<3'",
            code="unknown_matcher",
        )
    at = len(b"HDIFF13&\0")

    def number(tag_bits: int = 0) -> int:
        nonlocal at
        byte = diff[at]
        at += 1
        more = 1 << (7 - tag_bits)
        value = byte & (more - 1)
        while byte & more:
            byte, more = diff[at], 0x80
            at += 1
            value = value << 7 | byte & 0x7F
        return value

    count = [number() for _ in range(_HEADER_NUMBERS)][2]
    old_end = new_end = 0
    for _ in range(count):
        backwards = diff[at] & 0x80
        distance = number(1)
        old_at = old_end - distance if backwards else old_end + distance
        new_at = new_end + number()
        length = number()
        old_end, new_end = old_at + length, new_at + length
        if length:
            yield new_at, old_at, length


def operations(covers: Iterable[Cover], size: int) -> list[Operation]:
    """Return the operations that covers stand for, in `size` new bytes."""
    out: list[Operation] = []
    source = target = length = 0
    for new_at, old_at, count in covers:
        out.append((length, new_at - target, old_at - source))
        source, target, length = old_at + count, new_at + count, count
    out.append((length, size - target, 0))
    return out[1:] if out[0] == (0, 0, 0) else out


def streams(
    old: bytes, new: bytes, covers: Sequence[Cover], change: Change | None = None
) -> tuple[bytearray, bytearray]:
    """Return the diff (new minus old, modulo 256) and the extra bytes of covers.

    Args:
        old: what is copied from.
        new: what is made.
        covers: by place in `new`.
        change: is given old bytes before they are subtracted, to change them in
            place, and the parts of covers they are for, none longer than PART.
    """
    diff, extra = bytearray(), bytearray()
    old_view, new_view = memoryview(old), memoryview(new)
    parts: list[Cover] = []
    waiting = target = 0

    def subtract() -> None:
        nonlocal waiting
        before = bytearray().join([old_view[at : at + size] for _, at, size in parts])
        after = b"".join([new_view[at : at + size] for at, _, size in parts])
        if change is not None:
            change(before, parts)
        # The core adds; so the old bytes go in negated.
        data = bytes(before.translate(_NEGATE))
        control = _TRIPLE.pack(waiting, 0, 0)
        diff.extend(bsdiff4.core.patch(data, waiting, control, after, b""))
        parts.clear()
        waiting = 0

    for new_at, old_at, length in covers:
        extra += new_view[target:new_at]
        target = new_at + length
        for at in range(0, length, PART):
            count = min(PART, length - at)
            parts.append((new_at + at, old_at + at, count))
            waiting += count
            if waiting >= _PIECE:
                subtract()
    subtract()
    extra += new_view[target:]
    return diff, extra
