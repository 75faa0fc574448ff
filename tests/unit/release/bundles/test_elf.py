# SPDX-License-Identifier: Apache-2.0
"""Programs are described as their headers say, as far as a reader would take it."""

import struct
from array import array
from pathlib import Path

import pytest
from fakes import compiled
from fakes.tools import need
from hypothesis import given
from hypothesis import strategies as st

from updaterd.artifact.programs.image import (
    CODE,
    FRAMES,
    FUNCTIONS,
    MAX_LISTED,
    MAX_SEGMENTS,
    TABLE,
    WORDS,
    Image,
)
from updaterd.release.bundles.programs import elf

pytestmark = pytest.mark.slow

SECTIONS_AT = 40  # in the header: where the section headers are
HEADER, SEGMENT, SECTION = 64, 56, 64


def rows(data, width):
    numbers = iter(array("q", data))
    return list(zip(*[numbers] * width, strict=True))


def kinds(program):
    return {kind for kind, *_ in rows(program.regions, 8)}


def read(program):
    """Return the image as a reader makes it; ValueError: it would not."""
    return Image(program.segments, program.regions, b"")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A program of each kind."""
    need("gcc")
    base = tmp_path_factory.mktemp("built")
    text = compiled.source(20)
    return {kind: compiled.build(base / kind, text, kind) for kind in compiled.KINDS}


@pytest.mark.slow
def test_a_program_of_gcc_has_every_kind_of_region_but_go_s(built):
    """Code, pointers, frames and their sorted table."""
    for data in built.values():
        program = elf.describe(data)
        assert program is not None
        assert kinds(program) == {CODE, WORDS, FRAMES, TABLE}
        assert read(program).end <= len(data)
        assert 0 < program.room < MAX_LISTED


def test_constants_hold_addresses_only_where_the_program_is_not_moved(built):
    """Elsewhere, numbers in .rodata that look like addresses are numbers."""

    def words(kind):
        program = elf.describe(built[kind])
        return sum(row[2] for row in rows(program.regions, 8) if row[0] == WORDS)

    fixed = rows(elf.describe(built["fixed"]).regions, 8)
    code_end = max(r[1] + r[2] for r in fixed if r[0] == CODE)
    frames = min(r[1] for r in fixed if r[0] in {FRAMES, TABLE})

    assert any(r[0] == WORDS and code_end <= r[1] < frames for r in fixed)
    moved = rows(elf.describe(built["pie"]).regions, 8)
    code_end = max(r[1] + r[2] for r in moved if r[0] == CODE)
    frames = min(r[1] for r in moved if r[0] in {FRAMES, TABLE})
    assert not any(r[0] == WORDS and code_end <= r[1] < frames for r in moved)


def test_what_is_not_stored_is_a_segment_of_its_own(built):
    """It is aligned by itself, so references to it move by themselves."""
    for data in built.values():
        segments = rows(elf.describe(data).segments, 5)
        assert any(stored == 0 and memory for _, _, stored, memory, _ in segments)


def test_without_section_headers_whole_segments_are_searched(built):
    """A program that is stripped of them runs, and is described by what it loads."""
    for data in built.values():
        stripped = bytearray(data)
        stripped[SECTIONS_AT : SECTIONS_AT + 8] = bytes(8)
        program = elf.describe(bytes(stripped))
        assert kinds(program) == {CODE, WORDS}
        assert sum(r[2] for r in rows(program.regions, 8)) == sum(
            s[2] for s in rows(program.segments, 5)
        )
        read(program)


def test_blank_sections_of_a_program_without_code_are_no_regions(built):
    """Found by fuzzing: a region of nothing was refused by every reader."""
    data = bytearray(built["fixed"])
    (at,) = struct.unpack_from("<Q", data, SECTIONS_AT)
    for number in range((len(data) - at) // SECTION):
        data[at + SECTION * number + 8] &= ~4  # SHF_EXECINSTR
    program = elf.describe(bytes(data))

    assert all(row[2] for row in rows(program.regions, 8))
    read(program)


def patched(data, at, value, size=2):
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


@pytest.mark.parametrize(
    ("at", "value"),
    [(4, 1), (5, 2), (16, 1), (16, 4), (18, 40), (54, 32), (56, 0)],
    ids=["32", "big-endian", "object", "core", "arm32", "odd rows", "no segments"],
)
def test_other_files_have_no_image(built, at, value):
    """Not 64 bits, little-endian, loadable, of a known machine: any other file."""
    size = 1 if at < 16 else 2
    assert elf.describe(patched(built["pie"], at, value, size)) is None


@given(st.data())
def test_no_broken_program_is_more_than_one_without_an_image(built, data):
    """Cut anywhere, with any bytes changed: None, or an image that readers take."""
    whole = bytearray(built[data.draw(st.sampled_from(sorted(built)))])
    places = st.one_of(
        st.integers(0, HEADER - 1),
        st.integers(HEADER, HEADER + 12 * SEGMENT),
        st.integers(len(whole) - 32 * SECTION, len(whole) - 1),
        st.integers(0, len(whole) - 1),
    )
    values = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
    for at, value in data.draw(st.lists(st.tuples(places, values), max_size=12)):
        whole[at] = value
    program = elf.describe(bytes(whole[: data.draw(places | st.none())]))

    if program is not None:
        assert read(program).end <= len(whole)
        assert program.room >= 0


@given(st.binary(max_size=400))
def test_no_bytes_behind_the_magic_are_an_error(data):
    """Whatever a file is that begins as a program does."""
    program = elf.describe(elf.MAGIC + data)
    assert program is None or read(program)


def elf_file(sections, *, segments, kind=2):
    """Return an ELF file by hand.

    Args:
        sections: name, type, flags, address, offset and bytes of each.
        segments: flags, offset, address, stored and memory of each.
        kind: ET_EXEC or ET_DYN.
    """
    names = b"\0" + b"".join(name + b"\0" for name, *_ in sections) + b".shstrtab\0"
    end = max(offset + len(data) for *_, offset, data in sections)
    out = bytearray(end) + names
    for *_, offset, data in sections:
        out[offset : offset + len(data)] = data
    table = len(out)
    out += bytes(SECTION)
    at = 1
    for name, type_, flags, address, offset, data in sections:
        out += struct.pack(
            "<IIQQQQIIQQ", at, type_, flags, address, offset, len(data), 0, 0, 1, 0
        )
        at += len(name) + 1
    out += struct.pack("<IIQQQQIIQQ", at, 3, 0, 0, end, len(names), 0, 0, 1, 0)
    count = len(sections) + 2
    out[:HEADER] = elf.MAGIC.ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH",
        *(kind, 62, 1, 0, HEADER, table, 0, HEADER),
        *(SEGMENT, len(segments), SECTION, count, count - 1),
    )
    for number, (flags, offset, address, stored, memory) in enumerate(segments):
        struct.pack_into(
            "<IIQQQQQQ",
            out,
            HEADER + SEGMENT * number,
            *(1, flags, offset, address, address, stored, memory, 4096),
        )
    return bytes(out)


BASE, LINES, DATA = 0x400000, 0x2000, 0x3000  # file offsets of the last two
COUNT, TO_FUNCTIONS = 3, 0x100
FUNCTION_DATA = BASE + DATA + 8


def go(*, magic=0xFFFFFFF1, text=BASE + 0x1000, count=COUNT, data=FUNCTION_DATA):
    """Return a program of Go, as far as it is looked at."""
    lines = bytearray(0x200)
    struct.pack_into(
        "<I4xQQQQQQQQ",
        lines,
        0,
        *(magic, count, 1, text, 72, 80, 88, 96, TO_FUNCTIONS),
    )
    module = bytearray(0x200)
    struct.pack_into("<QQ", module, 0, BASE + LINES, BASE + LINES + 72)
    struct.pack_into("<Q", module, 176, BASE + 0x1000)
    struct.pack_into("<Q", module, 320, data)
    return elf_file(
        [
            (b".text", 1, 6, BASE + 0x1000, 0x1000, bytes(0x100)),
            (b".gopclntab", 1, 2, BASE + LINES, LINES, bytes(lines)),
            (b".go.module", 1, 3, BASE + DATA, DATA, bytes(module)),
        ],
        segments=[
            (5, 0, BASE, 0x1100, 0x1100),
            (4, LINES, BASE + LINES, 0x200, 0x200),
            (6, DATA, BASE + DATA, 0x200, 0x200),
        ],
    )


def functions(data):
    return [r for r in rows(elf.describe(data).regions, 8) if r[0] == FUNCTIONS]


@pytest.mark.parametrize("text", [BASE + 0x1000, 0], ids=["old", "new"])
def test_go_s_function_table_is_a_region(text):
    """Its text is in its header, or (newer Go) in moduledata."""
    assert functions(go(text=text)) == [
        (
            *(FUNCTIONS, LINES + TO_FUNCTIONS, 0x200 - TO_FUNCTIONS),
            *(COUNT, BASE + 0x1000, BASE + LINES + 72, BASE + LINES + 96),
            FUNCTION_DATA,
        )
    ]
    read(elf.describe(go(text=text)))


@pytest.mark.parametrize(
    "odd",
    [{"magic": 0xFFFFFFFB}, {"count": 33}, {"count": 0}, {"text": 5}],
    ids=["another version", "too many", "none", "text nowhere"],
)
def test_an_odd_function_table_is_left_out(odd):
    """The rest of the program is described all the same."""
    assert functions(go(**odd)) == []
    assert CODE in kinds(elf.describe(go(**odd)))


def test_function_data_that_is_nowhere_is_left_out():
    """The rest of the table is not."""
    assert functions(go(data=7))[0][-1] == 0


def test_only_as_many_references_are_listed_as_a_reader_takes():
    """The largest list goes first; what is searched for has no limit."""
    table = bytearray((MAX_LISTED + 1) * 4 + 12)
    table[:4] = b"\x01\x1b\x03\x3b"
    struct.pack_into("<I", table, 8, MAX_LISTED)
    end = 0x2000 + len(table)
    data = elf_file(
        [
            (b".text", 1, 6, BASE + 0x1000, 0x1000, bytes(0x100)),
            (b".eh_frame_hdr", 1, 2, BASE + 0x2000, 0x2000, bytes(table)),
        ],
        segments=[(5, 0, BASE, end, end)],
    )
    program = elf.describe(data)

    assert kinds(program) == {CODE}
    assert program.room == MAX_LISTED


def test_more_blank_sections_than_segments_fit_are_not_split():
    """An image has so many segments at most; the program keeps its own then."""
    blank = [
        (b".b", 8, 3, BASE + 0x2000 + 16 * n, 0x1100, bytes(16))
        for n in range(MAX_SEGMENTS)
    ]
    data = elf_file(
        [(b".text", 1, 6, BASE + 0x1000, 0x1000, bytes(0x100)), *blank],
        segments=[(5, 0, BASE, 0x1100, 0x4000)],
    )

    assert rows(elf.describe(data).segments, 5) == [(0, BASE, 0x1100, 0x4000, 1)]
    few = elf_file(
        [(b".text", 1, 6, BASE + 0x1000, 0x1000, bytes(0x100)), *blank[:2]],
        segments=[(5, 0, BASE, 0x1100, 0x4000)],
    )
    assert rows(elf.describe(few).segments, 5) == [
        (0, BASE, 0x1100, 0x2000, 1),
        (0x1100, BASE + 0x2000, 0, 16, 1),
        (0x1100, BASE + 0x2010, 0, 0x4000 - 0x2010, 1),
    ]


def test_a_file_is_told_by_its_beginning(tmp_path):
    """Nothing is read in vain of files that are no programs."""
    (tmp_path / "text").write_text("#!/bin/sh\n")
    (tmp_path / "program").write_bytes(elf.MAGIC + bytes(9))

    assert not elf.is_one(tmp_path / "text")
    assert elf.is_one(Path(tmp_path / "program"))
