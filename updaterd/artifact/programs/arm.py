# SPDX-License-Identifier: Apache-2.0
"""References in AArch64 code: found, read, written.

The Python twin of `native/arm.c`; see `image`. An instruction has 32 bits and holds few
of an address: what is far away is a page, loaded by ADRP, and low bits that an ADD, a
load or a store after it adds.
"""

from __future__ import annotations

import re
import sys
from array import array
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_WORD = Struct("<I")

ALONE, _LOW, _LAST, WINDOW = 1, 1, 8, 7
"""How a reference is made, as a search finds it: 1 is an instruction by itself; then
the low bits of an address whose page is loaded 1 to 7 instructions before, by one that
others follow (2 to 8) or as the last one (9 to 15), which has the page with it."""

_OTHER, _BRANCH, _NEAR, _TEST, _LITERAL, _ADDRESS, _PAGE, _SUM, _STORE = range(9)
_FORMS = bytearray(256)  # by an instruction's highest byte
for _form, _tops in (
    (_BRANCH, (0x14, 0x15, 0x16, 0x17, 0x94, 0x95, 0x96, 0x97)),  # B, BL
    (_NEAR, (0x54, 0x34, 0x35, 0xB4, 0xB5)),  # B.cond, CBZ, CBNZ
    (_TEST, (0x36, 0x37, 0xB6, 0xB7)),  # TBZ, TBNZ
    (_LITERAL, (0x18, 0x1C, 0x58, 0x5C, 0x98, 0x9C, 0xD8, 0xDC)),  # LDR of one nearby
    (_ADDRESS, (0x10, 0x30, 0x50, 0x70)),  # ADR
    (_PAGE, (0x90, 0xB0, 0xD0, 0xF0)),  # ADRP
    (_SUM, (0x91,)),  # ADD of 64 bits
    (_STORE, (0x39, 0x3D, 0x79, 0x7D, 0xB9, 0xBD, 0xF9, 0xFD)),  # LDR, STR
):
    for _top in _tops:
        _FORMS[_top] = _form
_REFERRING = re.compile(b"[\\x01-\\x06]")
_PARTED, _LOW_BITS = 0x60FF_FFE0, 0x003F_FC00


def before(how: int) -> int:
    """Return how many bytes before its place a reference begins."""
    return 0 if how == ALONE else 4 * (how - (_LAST if how > _LAST else _LOW))


def search(
    data: bytes, low: int, high: int, shift: int, spans: tuple[tuple[int, int], ...]
) -> Iterator[int]:
    """Yield four times the place of each reference in [low, high), plus how it is made.

    Args:
        data: of a chunk.
        low: where to begin.
        high: what no reference reaches over.
        shift: what makes an address of a place in `data`.
        spans: lowest address and end of code, then of memory.
    """
    low = (low + 3) // 4 * 4
    if low >= high:
        return
    words = array("I", data[low : high - (high - low) % 4])
    if sys.byteorder == "big":
        words.byteswap()
    forms = data[low + 3 : high : 4].translate(_FORMS)[: len(words)]
    hows: dict[int, int] = {}  # by index
    for match in _REFERRING.finditer(forms):
        index = match.start()
        word, form = words[index], forms[index]
        address = low + 4 * index + shift
        target = _target(word, form, address)
        least, most = spans[form >= _LITERAL]
        if form == _PAGE:  # some of it is enough: that is its middle
            least, most = least - 2047, most + 2048
        if not least <= target < most:
            continue
        if (form == _NEAR and word & 0xFF00_0010 == 0x5400_0010) or (
            form == _LITERAL and target == address
        ):
            continue
        if form != _PAGE or not _pair(words, forms, index, hows):
            hows[index] = ALONE
    for index in sorted(hows):
        yield 4 * (low + 4 * index) + hows[index]


def _pair(words: array[int], forms: bytes, index: int, hows: dict[int, int]) -> bool:
    """Note who takes the page that is loaded at an index; tell whether anybody does."""
    number = words[index] & 31
    last = 0
    for d in range(1, min(WINDOW, len(words) - index - 1) + 1):
        word, form = words[index + d], forms[index + d]
        if form in {_ADDRESS, _PAGE} and word & 31 == number:
            break
        if word >> 5 & 31 != number or not (
            form == _STORE or (form == _SUM and not word >> 22 & 3)
        ):
            continue
        hows[index + d] = _LOW + d
        last = d
        if word & 31 == number and (
            form == _SUM or (not word >> 26 & 1 and word >> 22 & 3)
        ):
            break
    if last:
        hows[index + last] = _LAST + last
    return bool(last)


def _signed(word: int, low: int, count: int) -> int:
    """Return bits [low, low + count) of a word, with their sign."""
    value = word >> low & (1 << count) - 1
    return value - (1 << count) if value >> count - 1 else value


def _parted(word: int) -> int:
    """Return the 21 bits that ADR and ADRP have in two places."""
    return _signed(word, 5, 19) * 4 + (word >> 29 & 3)


def _part(value: int) -> int:
    return (value >> 2 & 0x7FFFF) << 5 | (value & 3) << 29


def _scale(word: int) -> int:
    """Return by how many bits a load or a store shifts its offset; ADD: none."""
    if _FORMS[word >> 24] == _SUM:
        return 0
    return 4 if word >> 23 & 9 == 9 and not word >> 30 else word >> 30


def _target(word: int, form: int, address: int) -> int:
    """Return what an instruction by itself refers to."""
    if form == _BRANCH:
        return address + 4 * _signed(word, 0, 26)
    if form in {_NEAR, _LITERAL}:
        return address + 4 * _signed(word, 5, 19)
    if form == _TEST:
        return address + 4 * _signed(word, 5, 14)
    if form == _ADDRESS:
        return address + _parted(word)
    return ((address >> 12) + _parted(word)) * 4096 + 2048


def target(data: bytes | bytearray, at: int, how: int, address: int) -> int:
    """Return what the reference at `at` refers to; that is its address."""
    word: int = _CHUNK_WORD.unpack_from(data, at)[0]
    if how == ALONE:
        return _target(word, _FORMS[word >> 24], address)
    ahead = before(how)
    loads: int = _CHUNK_WORD.unpack_from(data, at - ahead)[0]
    page = ((address - ahead) >> 12) + _parted(loads)
    return page * 4096 + ((word >> 10 & 0xFFF) << _scale(word))


def put(  # noqa: PLR0913, PLR0917 - a reference has two places
    data: bytearray, at: int, how: int, target: int, address: int, page_from: int
) -> None:
    """Have the reference at `at` refer to a target.

    Args:
        data: holds it.
        at: where.
        how: it is made.
        target: the address.
        address: where it comes to lie.
        page_from: where the instruction that loads its page comes to lie.
    """
    word: int = _CHUNK_WORD.unpack_from(data, at)[0]
    if how != ALONE:
        low = (target & 0xFFF) >> _scale(word)
        _CHUNK_WORD.pack_into(data, at, word & ~_LOW_BITS | low << 10)
        if how > _LAST:
            at -= before(how)
            loads: int = _CHUNK_WORD.unpack_from(data, at)[0]
            page = (target >> 12) - (page_from >> 12)
            _CHUNK_WORD.pack_into(data, at, loads & ~_PARTED | _part(page))
        return
    by = target - address
    form = _FORMS[word >> 24]
    if form == _BRANCH:
        word = word & 0xFC00_0000 | by >> 2 & 0x3FF_FFFF
    elif form in {_NEAR, _LITERAL}:
        word = word & 0xFF00_001F | (by >> 2 & 0x7_FFFF) << 5
    elif form == _TEST:
        word = word & 0xFFF8_001F | (by >> 2 & 0x3FFF) << 5
    elif form == _ADDRESS:
        word = word & ~_PARTED | _part(by)
    else:
        word = word & ~_PARTED | _part((target >> 12) - (address >> 12))
    _CHUNK_WORD.pack_into(data, at, word)
