# SPDX-License-Identifier: Apache-2.0
"""References are found and re-aimed as docs/formats.md says, compiled or not."""

import itertools
import struct

import pytest
from fakes.programs import CODE_AT, program, rows
from fakes.uncompiled import BOTH, use

from updaterd.artifact.programs import projection
from updaterd.artifact.programs.image import CODE, FRAMES, FUNCTIONS, TABLE, WORDS


@pytest.fixture(params=BOTH)
def module(request, monkeypatch):
    """Each of the implementations, where the machine has that one."""
    use(request.param, monkeypatch)
    return projection.implementation()


def region(kind, start, length, *parameters):
    return (kind, start, length, *parameters, *[0] * (5 - len(parameters)))


def flat(*tuples):
    return rows(*itertools.chain(*tuples))


# One segment of code, then one of data that is longer in memory than in the file.
SEGMENTS = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x8000, 0x100, 0x180, 0)]


class Case:
    """One old file, copied whole into one new one, with all else as given."""

    def __init__(self, module, data, regions=(), tables=(), segments=SEGMENTS):
        self.module = module
        self.data = bytes(data)
        self.image = module.Image(flat(*segments), flat(*regions), flat(*tables))
        self.projector = module.Projector(
            lambda low, high: self.data[low:high],
            rows(0),
            rows(len(data)),
            [self.image],
        )

    def projected(self, new, copies):
        """Return the copies' bytes for a file with these segments."""
        starts, lengths, news = zip(*copies, strict=True)
        columns = rows(*starts), rows(*lengths), rows(*news)
        image = self.module.Image(flat(*new), b"", b"")
        self.projector.aim(image, *columns)
        data = bytearray()
        for start, length, _ in copies:
            data += self.data[start : start + length]
        self.projector.project(data, *columns)
        return bytes(data)


MOVED = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x9000, 0x100, 0x180, 0)]
ALL = [(0, 0x200, 0)]


def blank(**at):
    """Return a file of 0x200 zero bytes with some put in: x10=b"..." for 0x10."""
    data = bytearray(0x200)
    for place, content in at.items():
        offset = int(place[1:], 16)
        data[offset : offset + len(content)] = content
    return data


def s32(value):
    return struct.pack("<i", value)


def places(module, data, regions, tables=(), segments=SEGMENTS):
    """Return which bytes change when the data segment moves by 0x1000, as groups."""
    was = Case(module, data, regions, tables, segments)
    made = was.projected(MOVED, [(0, len(data), 0)])
    return [at for at in range(len(data)) if made[at] != data[at]], made


TO_DATA = 0x8010


@pytest.mark.parametrize(
    ("before", "found"),
    [
        (b"\x8d\x05", True),  # lea eax, [rip + ...]
        (b"\x8d\x3d", True),
        (b"\x8d\x0c", False),  # an address of another kind
        (b"\x8d\x85", False),  # relative to a register
        (b"\x90\xe8", False),  # a call of what is no code
        (b"\x90\xe9", False),
        (b"\x0f\x84", False),
    ],
)
def test_code_refers_to_data_through_modrm_only(module, before, found):
    """What calls and jumps go to must be code; a loaded address may be anywhere."""
    data = blank(x20=before + s32(TO_DATA - 0x1026))
    changed, made = places(module, data, [region(CODE, 0, 0x100)])

    assert bool(changed) == found
    if found:
        assert made[0x22:0x26] == s32(TO_DATA + 0x1000 - 0x1026)
        assert changed == [0x23]  # of the value, the bytes that differ


@pytest.mark.parametrize("before", [b"\xe8", b"\xe9", b"\x0f\x80", b"\x0f\x8f"])
def test_calls_and_jumps_follow_what_they_go_to(module, before):
    """Also where only the code they are in moves."""
    at = 0x20 + len(before)
    data = blank(x20=before + s32(0x1080 - (0x1000 + at + 4)))
    case = Case(module, data, [region(CODE, 0, 0x100)])
    made = case.projected(SEGMENTS, [(0, 0x40, 0), (0x40, 0xB0, 0x50)])

    assert made[at : at + 4] == s32(0x1090 - (0x1000 + at + 4))


def test_the_first_byte_of_a_region_is_no_modrm(module):
    """There is no instruction before it that it could belong to."""
    data = blank(x20=b"\x05" + s32(TO_DATA - 0x1025))

    assert not places(module, data, [region(CODE, 0x20, 0x20)])[0]
    assert places(module, data, [region(CODE, 0x1F, 0x20)])[0]


def test_a_modrm_without_distance_is_none(module):
    """A value of zero is what zeros look like."""
    data = blank(x20=b"\x8d\x05\0\0\0\0")
    case = Case(module, data, [region(CODE, 0, 0x100)])

    assert (
        case.projected(SEGMENTS, [(0, 0x26, 0), (0x26, 0x50, 0x30)])[:0x26]
        == (data[:0x26])
    )


def test_the_search_goes_on_behind_what_it_found(module):
    """A value that looks like another reference is only a value."""
    size = 0x10000
    data = bytearray(size)
    data[0x20:0x25] = b"\xe8" + s32(0xF005)  # 05 f0 00 00: a load, if it were code
    segments = [(0, 0x1000, size, size, 1)]
    case = Case(module, data, [region(CODE, 0, size)], segments=segments)
    new = [(0, 0x1000, size + 8, size + 8, 1)]
    made = case.projected(new, [(0, 0x100, 0), (0x100, size - 0x100, 0x108)])

    assert made[0x20:0x25] == b"\xe8" + s32(0xF00D)


def test_the_search_goes_on_behind_the_highest_byte(module):
    """Which may look like a reference, where programs are large."""
    room = 0x1000_0000
    old = [(0, 0x1000, 0x200, 0x200, 1), (0x200, 0x8000, 0, room, 0)]
    new = [(0, 0x1000, 0x208, 0x208, 1), (0x208, 0x8000, 0, room, 0)]
    data = blank(x20=b"\x8d\x05" + s32(0x0512_3456) + s32(0x110 - 0x2A))
    case = Case(module, data, [region(CODE, 0, 0x100)], segments=old)
    made = case.projected(new, [(0, 0x100, 0), (0x100, 0x100, 0x108)])

    assert made[:0x100] == data[:0x100]
    # Without what comes before it, it is one.
    data[0x20:0x25] = b"\x90" * 5
    case = Case(module, data, [region(CODE, 0, 0x100)], segments=old)
    made = case.projected(new, [(0, 0x100, 0), (0x100, 0x100, 0x108)])
    assert made[0x26:0x2A] == s32(0x118 - 0x2A)


def test_the_search_goes_on_one_byte_behind_what_it_did_not_find(module):
    """What follows a call of nothing may be a reference."""
    data = blank(x20=b"\xe8\x05" + s32(TO_DATA - 0x1026))
    _, made = places(module, data, [region(CODE, 0, 0x100)])

    assert made[0x22:0x26] == s32(TO_DATA + 0x1000 - 0x1026)


@pytest.mark.parametrize(
    ("length", "found"), [(0x28, True), (0x26, True), (0x25, False)]
)
def test_a_reference_ends_within_its_region(module, length, found):
    """What reaches over a region's end is none."""
    data = blank(x20=b"\x8d\x05" + s32(TO_DATA - 0x1026))

    assert bool(places(module, data, [region(CODE, 0, length)])[0]) == found


@pytest.mark.parametrize("at", range(0x3FF8, 0x4004))
def test_a_reference_never_lies_across_a_chunk(module, at):
    """Files are searched in chunks of 16 KiB, each by itself."""
    data = bytearray(0x8000)
    data[at : at + 6] = b"\x8d\x05" + s32(0x14800 - (0x10000 + at + 6))
    old = [(0, 0x10000, 0x8000, 0x8000, 1)]
    new = [(0, 0x20000, 0x8100, 0x8100, 1)]
    case = Case(module, data, [region(CODE, 0, 0x8000)], segments=old)
    made = case.projected(new, [(0, 0x4400, 0), (0x4400, 0x3C00, 0x4500)])
    # ModRM and value lie in one chunk, and the byte before it as well.
    whole = at + 6 <= 0x4000 or at >= 0x4000

    assert (made != data) == whole


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (0x8010, True),
        (0x817F, True),
        (0x8180, False),
        (0x7FFF, False),
        (2**63 + 0x8010, False),
        (0x8010 + 2**32, False),
    ],
)
def test_words_are_addresses_in_memory(module, value, found):
    """Also of what lies behind the bytes of the file, and of nothing else."""
    data = blank(x110=struct.pack("<Q", value))
    case = Case(module, data, [region(WORDS, 0x100, 0x100)])
    made = case.projected(MOVED, ALL)

    assert (made != data) == found


def test_words_are_aligned_in_the_file(module):
    """At multiples of eight of the file, wherever the region begins."""
    pointer = struct.pack("<Q", TO_DATA)
    words = [region(WORDS, 0x103, 0x40)]

    assert places(module, blank(x108=pointer), words)[0]
    assert places(module, blank(x138=pointer), words)[0]
    assert not places(module, blank(x10c=pointer), words)[0]
    assert not places(module, blank(x100=pointer), words)[0]
    assert not places(module, blank(x140=pointer), words)[0]


def test_words_below_4096_are_small_numbers(module):
    """A program that claims to lie at zero does not make every number an address."""
    old = [(0, 0, 0x100, 0x100, 1), (0x100, 0x1000, 0x100, 0x180, 0)]
    new = [(0, 0x10, 0x100, 0x100, 1), (0x100, 0x2000, 0x100, 0x180, 0)]
    data = blank(x110=struct.pack("<QQ", 0x80, 0x1080))
    case = Case(module, data, [region(WORDS, 0x100, 0x100)], segments=old)
    made = case.projected(new, ALL)

    assert made[0x110:0x120] == struct.pack("<QQ", 0x80, 0x2080)


def _frame(length, identity, begin, tail):
    return struct.pack("<III", length, identity, begin & 0xFFFFFFFF) + tail


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        # Its CIE, the code it is about, and the exceptions' table.
        (_frame(21, 0x14, -0x6FFC, s32(9) + b"\4" + s32(0x40) + bytes(4)), 3),
        (_frame(21, 0x14, -0x6FFC, s32(9) + b"\0" + s32(0x40) + bytes(4)), 2),
        (_frame(21, 0x14, -0x6FFC, s32(9) + b"\4" + s32(0) + bytes(4)), 2),
        (_frame(16, 0x14, -0x6FFC, s32(9) + b"\4" + s32(0x40) + bytes(4)), 2),
        (_frame(12, 0x14, -0x6FFC, s32(9)), 2),
        (_frame(11, 0x14, -0x6FFC, s32(9)), 0),
        (_frame(21, 0, -0x6FFC, s32(9) + b"\4" + s32(0x40) + bytes(4)), 0),  # a CIE
        (_frame(0, 0x14, -0x6FFC, s32(9) + bytes(20)), 0),
        (_frame(3, 0x14, -0x6FFC, s32(9) + bytes(20)), 0),
        (_frame(0x5000, 0x14, -0x6FFC, s32(9) + bytes(20)), 0),
        (_frame(0xFFFFFFFF, 0x14, -0x6FFC, s32(9) + bytes(20)), 0),
    ],
)
def test_frames_refer_to_cie_code_and_exceptions(module, frame, found):
    """Each as far as it has room for it; the first odd one ends them all."""
    cie = struct.pack("<II", 12, 0) + bytes(8)
    data = blank(x100=cie, x110=frame)
    case = Case(module, data, [region(FRAMES, 0x100, 0x80)])
    # All data move by 0x1000, and by 0x10 more from the frame on.
    new = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x9000, 0x200, 0x280, 0)]
    copies = [(0, 0x100, 0), (0x100, 0x10, 0x100), (0x110, 0xF0, 0x120)]
    made = case.projected(new, copies)
    wanted = bytearray(data)
    if found:  # what the third refers to moves along with it
        wanted[0x114:0x11C] = s32(0x14 + 0x10) + s32(-0x6FFC - 0x1010)

    assert made == wanted
    # The frame alone moves: now the third is what changes, if there is one.
    copies = [(0, 0x100, 0), (0x130, 0xD0, 0x130), (0x110, 0x20, 0x170)]
    made = case.projected(new, copies)[-0x20:]
    assert (made[0x11:0x15] != data[0x121:0x125]) == (found == 3)


@pytest.mark.parametrize(("short", "found"), [(0, True), (1, False), (4, False)])
def test_a_frame_ends_within_its_region(module, short, found):
    """One that reaches over the end is none."""
    data = blank(x110=_frame(12, 0x14, 0x1020 - 0x801C, s32(9)))
    case = Case(module, data, [region(FRAMES, 0x110, 16 - short)])
    made = case.projected(MOVED, ALL)

    assert (made != data) == found


def test_a_table_holds_offsets_from_its_base(module):
    """Signed, and re-aimed together with the base; an odd rest is none."""
    data = blank(x110=s32(-0x7000) + s32(0x20) + b"\x11\x11\x11")
    case = Case(module, data, [region(TABLE, 0x110, 11, 0x8000)])
    made = case.projected(MOVED, ALL)

    assert made[0x110:0x11B] == s32(-0x8000) + s32(0x20) + b"\x11\x11\x11"


def test_entries_of_jump_tables_are_counted_from_the_table(module):
    """Signed; also where one is copied apart from its table."""
    data = blank(
        x110=s32(0x1010 - 0x8010) + s32(0x1020 - 0x8010) + s32(0x1030 - 0x8010)
    )
    case = Case(module, data, tables=[(0x110, 2)])

    whole = case.projected(MOVED, ALL)
    assert whole[0x110:0x11C] == s32(-0x8000) + s32(-0x7FF0) + s32(-0x6FE0)
    apart = case.projected(MOVED, [(0, 0x112, 0), (0x112, 0x20, 0x112)])
    assert apart[0x110:0x11C] == s32(-0x7000) + s32(-0x7FF0) + s32(-0x6FE0)


def _function(values, tables, datas, words):
    head = struct.pack("<IIIIIII", 0x20, 5, 0, 0, *values)
    return head + struct.pack("<IIIHBB", tables, 7, 0, 0, 0, datas) + words


def test_gos_functions_refer_to_text_names_and_tables(module):
    """Each word that is set, in what belongs to a function; the rest stays."""
    words = struct.pack("<IIII", 0x30, 0, 0xFFFFFFFF, 0x40)
    data = blank(
        x100=struct.pack("<II", 0x20, 0x10),
        x110=_function((0x31, 0, 0x33), 2, 2, words),
    )
    image = [region(FUNCTIONS, 0x100, 0x80, 1, 0x1000, 0x8000, 0x8000, 0x8000)]
    # Behind 0x108 all data moves by 16, behind 0x10 all code.
    new = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x9000, 0x200, 0x280, 0)]
    copies = [(0, 0x10, 0), (0x10, 0x80, 0x20), (0x100, 8, 0x100), (0x108, 0x90, 0x118)]
    made = Case(module, data, image).projected(new, copies)[0x90:]

    assert made[:8] == struct.pack("<II", 0x30, 0x20)
    words = struct.pack("<IIII", 0x40, 0, 0xFFFFFFFF, 0x50)
    wanted = bytearray(_function((0x41, 0, 0x43), 2, 2, words))
    wanted[0:4] = struct.pack("<I", 0x30)
    assert made[0x10 : 0x10 + len(wanted)] == wanted


@pytest.mark.parametrize(
    ("tables", "datas", "room", "changed"),
    [
        (99, 99, 40, 28),
        (99, 0, 40, 16),
        (0, 99, 40, 12),
        (2, 1, 40, 3),
        (99, 99, 20, 20),
        (99, 99, 10, 10),
    ],
)
@pytest.mark.parametrize("more", [0, 3])
def test_gos_functions_have_some_words_at_most(
    module, tables, datas, room, changed, more
):
    """16 tables of values and 12 data, as far as the region goes."""
    words = struct.pack("<I", 0x30) * 40
    data = blank(x100=struct.pack("<II", 0x20, 0x10)) + bytes(0x100)
    data[0x110 : 0x110 + 44 + 160] = _function((0, 0, 0), tables, datas, words)
    old = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x8000, 0x200, 0x200, 0)]
    length = 0x10 + 44 + 4 * room + more
    image = [region(FUNCTIONS, 0x100, length, 1, 0x1000, 0x8000, 0x1000, 0x1000)]
    copies = [(0, 0x20, 0), (0x20, 0xD0, 0x28), (0x100, 0x200, 0x100)]
    made = Case(module, data, image, segments=old).projected(old, copies)[-0x200:]
    values = struct.unpack_from("<40I", made, 0x10 + 44)

    assert values == (0x38,) * changed + (0x30,) * (40 - changed)


@pytest.mark.parametrize("data_at", [0, 0x10])
def test_go_without_function_data_leaves_it_alone(module, data_at):
    """An address of zero says that there is none, also where code lies there."""
    words = struct.pack("<I", 0x40 - data_at)
    data = blank(
        x100=struct.pack("<II", 0x20, 0x10), x110=_function((0, 0, 0), 0, 1, words)
    )
    image = [region(FUNCTIONS, 0x100, 0x80, 1, 0, 0, 0, data_at)]
    old = [(0, 0, 0x100, 0x100, 1), (0x100, 0x8000, 0x100, 0x100, 0)]
    copies = [(0, 0x20, 0), (0x20, 0xD0, 0x30), (0x100, 0x100, 0x100)]
    made = Case(module, data, image, segments=old).projected(old, copies)[-0x100:]

    assert (made[0x3C:0x40] != words) == bool(data_at)


def test_parts_of_functions_that_overlap_are_passed_over(module):
    """One that lies before the end of the last, or reaches over the region's end."""
    data = blank(
        x100=struct.pack("<IIIIII", 1, 0x18, 2, 0x20, 3, 0x60),
        x118=_function((0, 0, 0), 0, 0, b""),
        x120=struct.pack("<I", 0x25),  # of it, what nothing refers through
    )
    image = [region(FUNCTIONS, 0x100, 0x80, 3, 0x1000, 0x8000, 0x8000, 0x8000)]
    new = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x9000, 0x200, 0x280, 0)]
    made = Case(module, data, image).projected(
        new, [(0, 0x100, 0), (0x100, 0x100, 0x100)]
    )
    assert made == data  # bases and targets move together
    copies = [(0, 0x20, 0), (0x20, 0xE0, 0x30), (0x100, 0x100, 0x110)]
    made = Case(module, data, image).projected(new, copies)
    assert made[0x118:0x11C] == struct.pack("<I", 0x30)
    assert made[0x120:0x128] == data[0x120:0x128]
    assert made[0x160:0x164] == data[0x160:0x164]


def test_what_is_not_in_the_file_keeps_its_place_behind_it(module):
    """Memory behind a segment's bytes follows the segment of the same number."""
    data = blank(x110=struct.pack("<Q", 0x8170))
    words = [region(WORDS, 0x100, 0x100)]
    new = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x9000, 0x180, 0x200, 0)]
    made = Case(module, data, words).projected(new, ALL)

    assert made[0x110:0x118] == struct.pack("<Q", 0x91F0)
    one = [(0, 0x1000, 0x200, 0x200, 1)]
    assert Case(module, data, words).projected(one, ALL) == data


def test_what_is_not_stored_any_more_stays(module):
    """Neither the reference's new place nor its target may lie outside."""
    data = blank(x110=struct.pack("<Q", 0x8080))
    words = [region(WORDS, 0x100, 0x100)]
    short = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x9000, 0x70, 0x180, 0)]
    assert Case(module, data, words).projected(short, ALL) == data
    after = [(0, 0x1000, 0x100, 0x100, 1), (0x120, 0x9000, 0xE0, 0x180, 0)]
    assert Case(module, data, words).projected(after, ALL) == data


def test_files_that_nothing_is_copied_from_are_left_alone(module):
    """Bytes of them may still be asked for; there is no map for them."""
    data = blank(x110=struct.pack("<Q", TO_DATA))
    case = Case(module, data, [region(WORDS, 0x100, 0x100)])
    case.projector.aim(case.image, b"", b"", b"")
    old = bytearray(data)
    case.projector.project(old, rows(0), rows(0x200), rows(0))

    assert old == data


def test_between_copies_everything_moves_like_the_last_one_before(module):
    """And before the first copy like that one."""
    data = blank(x110=struct.pack("<QQ", 0x8080, 0x1010))
    case = Case(module, data, [region(WORDS, 0x100, 0x100)])
    new = [(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x8000, 0x200, 0x280, 0)]
    made = case.projected(new, [(0x110, 0x10, 0x120)])
    assert made == struct.pack("<QQ", 0x8090, 0x1020)
    made = case.projected(new, [(0, 0x20, 8), (0x110, 0x10, 0x120)])[0x20:]
    assert made == struct.pack("<QQ", 0x8090, 0x1018)
    made = case.projected(new, [(0x20, 0x10, 0x24), (0x110, 0x10, 0x120)])[0x10:]
    assert made == struct.pack("<QQ", 0x8090, 0x1014)


@pytest.mark.parametrize(
    ("copies", "shifts"),
    [
        # (start, length, to); then the shift of 0x20, 0x30 and 0x40
        ([(0x20, 0x30, 0x24), (0x30, 0x8, 0x60)], (4, 4, 4)),  # the longer one
        ([(0x20, 0x10, 0x24), (0x28, 0x30, 0x60)], (4, 0x38, 0x38)),
        ([(0x20, 0x20, 0x24), (0x28, 0x20, 0x60)], (4, 4, 0x38)),  # the first one
        ([(0x20, 0x10, 0x24), (0x20, 0x20, 0x60)], (0x40, 0x40, 0x40)),
        ([(0x20, 0x20, 0x24), (0x20, 0x20, 0x60)], (4, 4, 4)),
        ([(0x20, 0x20, 0x60), (0x10, 0x08, 0x10)], (0x40, 0x40, 0x40)),
        # what is left of the second is less than the third, which begins before it
        ([(0x10, 0x20, 0x18), (0x18, 0x1A, 0x60), (0x1C, 0x20, 0x74)], (8, 0x58, 0x58)),
    ],
)
def test_where_copies_overlap_the_longer_one_has_the_say(module, copies, shifts):
    """Of equals the first; what a shorter one leaves is its own."""
    pointers = (0x1020, 0x1030, 0x1040)
    data = blank(x110=struct.pack("<QQQ", *pointers))
    case = Case(module, data, [region(WORDS, 0x100, 0x100)])
    made = case.projected(SEGMENTS, [*copies, (0x110, 0x18, 0x110)])[-0x18:]

    moved = [p + s for p, s in zip(pointers, shifts, strict=True)]
    assert struct.unpack("<QQQ", made) == tuple(moved)


@pytest.mark.slow
def test_long_copies_are_cut(module):
    """A reference across a multiple of 256 KiB of a copy is left alone."""
    size = 1 << 18
    data = bytearray(2 * size)
    for at in range(0, len(data), 8):
        data[at : at + 8] = struct.pack("<Q", 0x10000 + at)
    old = [(0, 0x10000, len(data), len(data), 0)]
    new = [(0, 0x20000, len(data), len(data), 0)]
    case = Case(module, data, [region(WORDS, 0, len(data))], segments=old)
    made = case.projected(new, [(4, len(data) - 4, 4)])
    kept = [
        at
        for at in range(0, len(made) - 8, 8)
        if made[at + 4 :][:8] == data[at + 8 :][:8]
    ]

    assert kept == [size - 8]


def test_copies_may_go_over_the_end_of_a_file(module):
    """Each part is re-aimed by the file it is in, or by none."""
    one = bytes(blank(x110=struct.pack("<Q", TO_DATA)))
    words = flat(region(WORDS, 0x100, 0x100))
    image = module.Image(flat(*SEGMENTS), words, b"")
    whole = one * 3
    projector = module.Projector(
        lambda low, high: whole[low:high],
        rows(0, 0x200, 0x400),
        rows(0x200, 0x200, 0x200),
        [image, None, image],
    )
    new = module.Image(
        flat((0, 0x1000, 0x100, 0x100, 1), (0x100, 0x9000, 0x500, 0x580, 0)), b"", b""
    )
    columns = rows(0), rows(0x600), rows(0)
    projector.aim(new, *columns)
    data = bytearray(whole)
    projector.project(data, *columns)

    assert data[0x110:0x118] == struct.pack("<Q", 0x9010)
    assert data[0x200:0x400] == one
    assert data[0x510:0x518] == struct.pack("<Q", 0x9410)


@pytest.mark.parametrize("at", [0, 1, 20, 59])
@pytest.mark.parametrize("inserted", [b"\x90", b"\x55" * 16, b"\xe8" * 333])
def test_a_program_moved_by_an_insertion_is_the_new_one(module, inserted, at):
    """All its references follow: nothing is left for the diff."""
    old, image = program()
    new, (segments, _, _) = program(inserted, at)
    cut = CODE_AT + 27 * at
    case = module.Projector(
        lambda low, high: old[low:high], rows(0), rows(len(old)), [module.Image(*image)]
    )
    columns = (
        rows(0, cut),
        rows(cut, len(old) - cut),
        rows(0, cut + len(inserted)),
    )
    case.aim(module.Image(segments, b"", b""), *columns)
    data = bytearray(old)
    case.project(data, *columns)
    made = data[:cut] + inserted + data[cut:]

    assert sum(a != b for a, b in zip(old[cut:], new[cut:], strict=False)) > 400
    assert made.hex(" ", 16) == new.hex(" ", 16)


def _bad_images():
    good = ([(0, 0x1000, 0x100, 0x100, 1), (0x100, 0x8000, 0x100, 0x180, 0)], [], [])
    for name, index, value in [
        ("no segment", 0, []),
        ("33 segments", 0, [(i, i, 1, 1, 0) for i in range(33)]),
        ("order", 0, good[0][::-1]),
        ("overlap in the file", 0, [(0, 0, 9, 9, 0), (8, 99, 9, 9, 0)]),
        ("overlap in memory", 0, [(0, 0, 9, 9, 0), (9, 8, 9, 9, 0)]),
        ("less memory than bytes", 0, [(0, 0, 9, 8, 0)]),
        ("negative", 0, [(-1, 0, 9, 9, 0)]),
        ("far", 0, [(0, 2**53 - 4, 9, 9, 0)]),
        ("long", 0, [(2**53 - 4, 0, 9, 9, 0)]),
        ("code 2", 0, [(0, 0, 9, 9, 2)]),
        ("257 regions", 1, [region(CODE, i // 2, 0) for i in range(257)]),
        ("unknown kind", 1, [region(6, 0, 1)]),
        ("overlapping regions", 1, [region(CODE, 0, 9), region(WORDS, 8, 9)]),
        ("regions backwards", 1, [region(CODE, 9, 9), region(WORDS, 0, 9)]),
        ("region in two segments", 1, [region(CODE, 0xF0, 0x20)]),
        ("region outside", 1, [region(CODE, 0x1F0, 0x20)]),
        ("empty region outside", 1, [region(CODE, 0x200, 0)]),
        ("region of negative length", 1, [region(CODE, 9, -1)]),
        ("negative parameter", 1, [region(TABLE, 0, 8, -1)]),
        ("far parameter", 1, [region(TABLE, 0, 8, 2**53)]),
        ("too many functions", 1, [region(FUNCTIONS, 0, 15, 2, 0, 0, 0, 0)]),
        ("table outside", 2, [(0x1FC, 2)]),
        ("table in two segments", 2, [(0xFC, 2)]),
        ("empty table", 2, [(0, 0)]),
        ("negative table", 2, [(0, -1)]),
        ("huge table", 2, [(0, 2**62)]),
        ("overlapping tables", 2, [(0, 2), (4, 2)]),
        ("tables backwards", 2, [(8, 2), (0, 2)]),
    ]:
        yield pytest.param(index, value, id=name)


@pytest.mark.parametrize(("index", "value"), list(_bad_images()))
def test_impossible_images_are_refused(module, index, value):
    """Whatever rests on them may take them at their word."""
    parts = [list(SEGMENTS), [], []]
    module.Image(*(flat(*part) for part in parts))
    parts[index] = value

    with pytest.raises(ValueError):
        module.Image(*(flat(*part) for part in parts))


@pytest.mark.parametrize("kind", [CODE, FRAMES, TABLE, FUNCTIONS])
def test_jump_tables_lie_among_words_or_in_no_region(module, kind):
    """So what is listed never overlaps."""
    segments, tables = flat(*SEGMENTS), flat((0x110, 4))
    module.Image(segments, flat(region(WORDS, 0x100, 0x40)), tables)
    for start, length in ((0x100, 0x11), (0x11F, 8), (0x114, 4)):
        with pytest.raises(ValueError):
            module.Image(segments, flat(region(kind, start, length)), tables)
    for start, length in ((0x100, 0x10), (0x120, 8)):
        module.Image(segments, flat(region(kind, start, length)), tables)


def test_an_image_lists_a_million_references_at_most(module):
    """However they are spread; also when only the file shows how many there are."""
    size = 1 << 24
    segments = flat((0, 0x1000, size, size, 1))
    entries = 1 << 20
    module.Image(segments, b"", flat((0, entries)))
    for regions, tables in (
        ([], [(0, entries + 1)]),
        ([region(TABLE, 4 * entries, 4)], [(0, entries)]),
        ([region(FUNCTIONS, 4 * entries, 8, 1)], [(0, entries - 1)]),
    ):
        with pytest.raises(ValueError):
            module.Image(segments, flat(*regions), flat(*tables))
    data = _frame(12, 1, 0, bytes(4)) * 2
    image = module.Image(
        segments, flat(region(FRAMES, 4 * entries, 32)), flat((0, entries - 3))
    )
    columns = rows(0), rows(8), rows(0)
    projector = module.Projector(
        lambda low, high: (data * (high - low))[: high - low],
        rows(0),
        rows(size),
        [image],
    )
    projector.aim(image, *columns)
    with pytest.raises(ValueError):
        projector.project(bytearray(8), *columns)


def test_a_projector_checks_what_it_is_given(module):
    """Files in a row, images that fit, copies inside, data as long as they are."""
    image = module.Image(flat(*SEGMENTS), b"", b"")

    def make(starts, lengths, images):
        return module.Projector(
            lambda low, high: bytes(high - low), starts, lengths, images
        )

    for starts, lengths, images in (
        (rows(0), rows(0x1FF), [image]),
        (rows(0), rows(2**32), [image]),
        (rows(1), rows(0x200), [image]),
        (rows(0, 0x201), rows(0x200, 9), [image, None]),
        (rows(0), rows(0x200), []),
        (rows(0), rows(0x200, 9), [image]),
        (rows(0)[:7], rows(0x200), [image]),
        (rows(0), rows(-1), [None]),
    ):
        with pytest.raises(ValueError):
            make(starts, lengths, images)
    one = make(rows(0), rows(0x200), [image])
    with pytest.raises(ValueError):
        one.project(bytearray(4), rows(0), rows(4), rows(0))
    for columns in (
        (rows(0x1FD), rows(4), rows(0)),
        (rows(-1), rows(4), rows(0)),
        (rows(0), rows(-4), rows(0)),
        (rows(0), rows(4), rows(-1)),
        (rows(0), rows(4), rows()),
        (rows(0, 4), rows(4), rows(0)),
    ):
        with pytest.raises(ValueError):
            one.aim(image, *columns)
    one.aim(image, rows(0), rows(4), rows(0))
    for size in (3, 5):
        with pytest.raises(ValueError):
            one.project(bytearray(size), rows(0), rows(4), rows(0))


@pytest.mark.slow
def test_the_parts_of_copies_are_counted(module):
    """A million files of a byte are not a million maps of nothing."""
    image = module.Image(flat((0, 0, 1, 1, 0)), b"", b"")
    files, copies = 1024, 1024
    one = module.Projector(
        lambda low, high: bytes(high - low),
        rows(*range(files)),
        rows(*[1] * files),
        [image] * files,
    )
    one.aim(image, *(rows(*[n] * copies) for n in (0, files, 0)))
    with pytest.raises(ValueError):
        one.aim(image, *(rows(*[n] * (copies + 1)) for n in (0, files, 0)))


def test_what_reading_raises_is_passed_on(module):
    """And what it does not give is not made up."""
    image = module.Image(flat(*SEGMENTS), flat(region(CODE, 0, 0x100)), b"")

    def projected(read):
        one = module.Projector(read, rows(0), rows(0x200), [image])
        one.aim(image, rows(0), rows(4), rows(0))
        one.project(bytearray(4), rows(0), rows(4), rows(0))

    def refuse(low, high):
        raise OSError(5, "no")

    with pytest.raises(OSError, match="no"):
        projected(refuse)
    with pytest.raises(ValueError):
        projected(lambda *_: b"short")


def test_the_compiled_one_is_taken_where_there_is_one(monkeypatch):
    """And that in Python elsewhere."""
    for which, name in zip(BOTH, ("_native", "programs.projector"), strict=True):
        use(which, monkeypatch)
        assert projection.implementation().__name__ == f"updaterd.artifact.{name}"
