# SPDX-License-Identifier: Apache-2.0
"""Little AArch64 programs for tests: laid out anew, their references all follow."""

import struct
from pathlib import Path

from fakes.bundles import grow
from fakes.programs import BASE, CODE_AT, DATA_AT, GAP, control, rows

from updaterd.artifact import script
from updaterd.artifact.programs import stream as images
from updaterd.artifact.programs.image import ARM, WORDS
from updaterd.artifact.script import MADE, Item
from updaterd.core.tree import Entry

FUNCTION = 13 * 4
"""Bytes of each function."""
INSERTED = struct.pack("<I", 0xD503201F) * 6  # NOP
CUT = CODE_AT + FUNCTION * 20


def step(kind: str, place: int, target: int) -> int:
    """Return the instruction at an address that refers to another one."""
    by, pages = target - place, (target >> 12) - (place >> 12)
    return {
        "b": 0x14000000 | by >> 2 & 0x3FFFFFF,
        "bl": 0x94000000 | by >> 2 & 0x3FFFFFF,
        "b.ne": 0x54000001 | (by >> 2 & 0x7FFFF) << 5,
        "cbz x0": 0xB4000000 | (by >> 2 & 0x7FFFF) << 5,
        "tbnz w0, 5": 0x37280000 | (by >> 2 & 0x3FFF) << 5,
        "ldr x4": 0x58000004 | (by >> 2 & 0x7FFFF) << 5,
        "adr x3": 0x10000003 | (by & 3) << 29 | (by >> 2 & 0x7FFFF) << 5,
        "adrp x1": 0x90000001 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5,
        "adrp x9": 0x90000009 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5,
        "add x1, x1": 0x91000021 | (target & 0xFFF) << 10,
        "ldr x2, [x1]": 0xF9400022 | (target & 0xFFF) >> 3 << 10,
        "str w5, [x9]": 0xB9000125 | (target & 0xFFF) >> 2 << 10,
        "ldr q6, [x9]": 0x3DC00126 | (target & 0xFFF) >> 4 << 10,
    }[kind]


def program(inserted: bytes = b"", at: int = 20) -> tuple[bytes, tuple[bytes, ...]]:
    """Return a program and its image's rows; `inserted` comes before a function.

    60 functions that call each other, branch in every way, and load addresses, with
    what takes the page next to what loads it or apart from it; data of pointers.

    Args:
        inserted: a multiple of eight bytes.
        at: the function's number.
    """
    data_at = DATA_AT + len(inserted)

    def address(offset: int) -> int:
        return BASE + offset + (GAP if offset >= data_at else 0)

    def function(number: int) -> int:
        more = len(inserted) if number >= at else 0
        return address(CODE_AT + FUNCTION * number + more)

    def datum(number: int) -> int:
        return address(data_at + 16 * number)

    data = bytearray(CODE_AT)
    for number in range(60):
        if number == at:
            data += inserted
        far, near = function(number * 7 % 60), function(number * 11 % 60)
        one, other = datum(number % 16), datum(number * 5 % 16)
        for kind, target in (
            ("bl", far),
            ("adrp x1", one),
            ("add x1, x1", one),
            ("cbz x0", near),
            ("adrp x9", other),
            ("b.ne", far),
            ("ldr q6, [x9]", other),
            ("str w5, [x9]", other),
            ("tbnz w0, 5", near),
            ("adr x3", near),
            ("ldr x4", far),
            ("b", near),
        ):
            data += struct.pack("<I", step(kind, address(len(data)), target))
        data += struct.pack("<I", 0xD65F03C0)  # RET
    code_end = len(data)
    data += bytes(data_at - code_end)
    for number in range(16):
        data += struct.pack("<QQ", function(number * 3), number)
    end = len(data)
    data += b"the end"
    segments = rows(
        *(0, BASE, data_at, data_at, 1),
        *(data_at, address(data_at), len(data) - data_at, len(data), 0),
    )
    regions = rows(
        *(ARM, CODE_AT, code_end - CODE_AT, 0, 0, 0, 0, 0),
        *(WORDS, data_at, end - data_at, 0, 0, 0, 0, 0),
    )
    return bytes(data), (segments, regions, b"")


def moved(base: Path) -> tuple[tuple[Entry, ...], tuple[Entry, ...], list[bytes]]:
    """Make BASE/old and BASE/new; return their listings and a delta's raw streams."""
    old, image = program()
    new, _ = program(INSERTED)
    segments = program(INSERTED)[1][0]
    before, after = grow(base / "old", {"p": old}), grow(base / "new", {"b": new})
    streams = [
        script.encode(before, [Item("b", MADE, 0o644, len(new))], [0], [], set()),
        control([(0, CUT, len(INSERTED)), (CUT, len(old) - CUT, 0)]),
        b"",
        b"",
        INSERTED,
        images.encode({0: image, 1: (segments, b"", b"")}),
    ]
    return before, after, streams
