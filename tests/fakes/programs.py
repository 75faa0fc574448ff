# SPDX-License-Identifier: Apache-2.0
"""Little programs for tests: laid out anew, their references all follow."""

import struct
from array import array
from collections.abc import Iterable
from pathlib import Path

from fakes.bundles import assemble, grow

from updaterd.artifact import script
from updaterd.artifact.apply.operations import encode
from updaterd.artifact.codecs import STORED
from updaterd.artifact.container import DELTA
from updaterd.artifact.programs import stream as images
from updaterd.artifact.programs.image import CODE, FRAMES, FUNCTIONS, TABLE, WORDS
from updaterd.artifact.script import MADE, Item
from updaterd.core.tree import Entry

CODE_AT, DATA_AT = 0x400, 0x4000  # file offsets; addresses are these plus BASE
BASE, GAP = 0x10000, 0x1000


def rows(*numbers: int) -> bytes:
    """Return native int64 numbers."""
    return array("q", numbers).tobytes()


class Layout:
    """Pieces of a program: bytes, and references to labels that are resolved last."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.labels: dict[str, int] = {}
        self._later: list[tuple[int, str, str, str]] = []

    def mark(self, label: str) -> None:
        self.labels[label] = len(self.data)

    def plain(self, data: bytes) -> None:
        self.data += data

    def refer(self, kind: str, label: str, base: str = "") -> None:
        self._later.append((len(self.data), kind, label, base))
        self.data += bytes(8 if kind == "absolute" else 4)

    def fill(self, offset: int) -> None:
        self.data += bytes(offset - len(self.data))

    def resolved(self, address) -> bytes:
        """Return the bytes; `address` makes one of an offset."""
        out = bytearray(self.data)
        for at, kind, label, base in self._later:
            target, place = address(self.labels[label]), address(at)
            if kind == "absolute":
                struct.pack_into("<Q", out, at, target)
            elif kind == "relative":
                struct.pack_into("<i", out, at, target - place - 4)
            elif kind == "back":
                struct.pack_into("<I", out, at, place - target)
            else:
                struct.pack_into("<i", out, at, target - address(self.labels[base]))
        return bytes(out)


def _code(layout: Layout, inserted: bytes, at: int) -> None:
    for number in range(60):
        if number == at:
            layout.plain(inserted)
        layout.mark(f"f{number}")
        layout.plain(b"\x55\x48\x89\xfb\xe8")
        layout.refer("relative", f"f{number * 7 % 60}")
        layout.plain(b"\x48\x8d\x05")
        layout.refer("relative", f"d{number % 16}")
        layout.plain(b"\x0f\x85")
        layout.refer("relative", f"f{number * 11 % 60}")
        layout.plain(b"\x90\xc3" + bytes([number]) * 3)


def _words(layout: Layout) -> None:
    for number in range(16):
        layout.mark(f"d{number}")
        layout.refer("absolute", f"f{number * 3}")
    layout.mark("table")
    for number in range(9):
        layout.refer("offset", f"f{number}", "table")


def _frames(layout: Layout) -> None:
    layout.mark("cie")
    layout.plain(struct.pack("<II", 12, 0) + bytes(8))
    for number in range(30):
        layout.plain(struct.pack("<I", 21))
        layout.refer("back", "cie")
        layout.refer("relative", f"f{number}")
        layout.plain(struct.pack("<I", 16) + b"\x04")
        layout.refer("relative", f"d{number % 16}")
        layout.plain(bytes(4))
    layout.plain(bytes(4))


def _functions(layout: Layout) -> None:
    layout.mark("functions")
    for number in range(20):
        layout.refer("offset", f"f{number}", "f0")
        layout.refer("offset", f"g{number}", "functions")
    for number in range(20):
        layout.mark(f"g{number}")
        layout.refer("offset", f"f{number}", "f0")
        layout.refer("offset", f"d{number % 16}", "d0")
        layout.plain(bytes(8))
        for _ in range(3):
            layout.refer("offset", f"d{1 + number % 15}", "d0")
        layout.plain(struct.pack("<IIIHBB", 2, 7, 0, 0, 0, 1))
        for _ in range(3):
            layout.refer("offset", f"d{1 + number % 15}", "d0")


def program(inserted: bytes = b"", at: int = 20) -> tuple[bytes, tuple[bytes, ...]]:
    """Return a program and its image's rows; `inserted` comes before a function.

    Code of 60 functions that call each other, jump and load addresses; data of
    pointers, a jump table, unwinding frames with their sorted table, Go's functions.
    """
    layout = Layout()
    layout.fill(CODE_AT)
    _code(layout, inserted, at)
    code_end = len(layout.data)
    data_at = DATA_AT + len(inserted)
    layout.fill(data_at)
    _words(layout)
    frames = len(layout.data)
    _frames(layout)
    sorted_table = len(layout.data)
    for number in range(60):
        layout.refer("offset", f"f{number}", "table")
    functions = len(layout.data)
    _functions(layout)
    end = len(layout.data)
    layout.plain(b"the end")

    def address(offset: int) -> int:
        return BASE + offset + (GAP if offset >= data_at else 0)

    data = layout.resolved(address)
    segments = rows(
        *(0, BASE, data_at, data_at, 1),
        *(data_at, address(data_at), len(data) - data_at, len(data), 0),
    )
    d0, table = address(data_at), layout.labels["table"]
    regions = rows(
        *(CODE, CODE_AT, code_end - CODE_AT, 0, 0, 0, 0, 0),
        *(WORDS, data_at, frames - data_at, 0, 0, 0, 0, 0),
        *(FRAMES, frames, sorted_table - frames, 0, 0, 0, 0, 0),
        *(TABLE, sorted_table, functions - sorted_table, address(table), 0, 0, 0, 0),
        *(FUNCTIONS, functions, end - functions, 20),
        *(address(layout.labels["f0"]), d0, d0, d0),
    )
    return data, (segments, regions, rows(table, 9))


INSERTED = b"\x0f\x1f\x40\x00" * 6
CUT = CODE_AT + 27 * 20
TEXT = b"".join(b"line %d\n" % number for number in range(200))


def moved(base: Path) -> tuple[tuple[Entry, ...], tuple[Entry, ...], list[bytes]]:
    """Make BASE/old and BASE/new; return their listings and a delta's raw streams.

    The new tree has the program with INSERTED in it, and made of that one the old
    program again, with text around them that has no image: all in one batch.
    """
    old, image = program()
    new, new_image = program(INSERTED)
    before = grow(base / "old", {"p": old, "t": TEXT})
    files = {"a": TEXT[8:], "b": new, "c": TEXT[:-8], "d": old, "e": TEXT}
    after = grow(base / "new", files)
    items = [Item(name, MADE, 0o644, len(data)) for name, data in files.items()]
    rest, text, third = len(old) - CUT, len(old), len(old) + len(TEXT)
    reads = [  # from old p, t, then the b that is made: start, length, new bytes
        (text + 8, len(TEXT) - 8, 0),
        (0, CUT, len(INSERTED)),
        (CUT, rest, 0),
        (text, len(TEXT) - 8, 0),
        (third, CUT, 0),
        (third + CUT + len(INSERTED), rest, 0),
        (text, len(TEXT), 0),
    ]
    streams = [
        script.encode(before, items, [0, 1], [1], set()),
        control(reads),
        b"",
        b"",
        INSERTED,
        images.encode({0: image, 3: new_image, 5: (image[0], b"", b"")}),
    ]
    return before, after, streams


def control(reads: Iterable[tuple[int, int, int]]) -> bytes:
    """Return the operations that read so: start, length, new bytes behind it."""
    operations, at = [(0, 0, 0)], 0
    for start, length, extra in reads:
        length_before, more, _ = operations[-1]
        operations[-1] = length_before, more, start - at
        operations.append((length, extra, 0))
        at = start + length
    return b"".join(encode(operations))


def delta(streams: Iterable[bytes]) -> bytes:
    """Return a bundle of these streams, as they are."""
    return assemble(DELTA, *((STORED, len(data), data) for data in streams))
