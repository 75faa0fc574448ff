# SPDX-License-Identifier: Apache-2.0
"""Containers made to hurt: found as far as they are sound, in bounded work."""

import gzip
import struct
import zlib

import pytest
from fakes.archives import text, zipped
from fakes.bundles import grow

from updaterd.artifact.archives.layout import MAX_DEPTH, MAX_STREAMS
from updaterd.release.bundles.archives import expansion, finder
from updaterd.release.bundles.archives.finder import Budget, Stream


def survey(data, folder, streams=MAX_STREAMS):
    budget = Budget(folder)
    budget.streams = streams
    budget.begin(len(data))
    return finder.survey(data, budget), budget


def depth(marks):
    return max((1 + depth(mark.inner) for mark in marks), default=0)


def test_a_bomb_is_left_as_bytes(tmp_path):
    """1,000 times its length, ten times over, in each other."""
    bomb = bytes(2**22)
    for _ in range(4):
        bomb = zlib.compress(bomb, 9) + bytes(100)
    marks, budget = survey(b"".join([bomb] * 3), tmp_path)

    assert depth(marks) <= MAX_DEPTH
    assert budget.room > -(2**23)


def test_a_thousand_zips_in_each_other_are_looked_into_a_few_deep(tmp_path):
    data = zipped({"x": text(1, 200)})
    for _ in range(1000):
        data = gzip.compress(data, 1, mtime=0)
    marks, _ = survey(data, tmp_path)

    assert depth(marks) == MAX_DEPTH


def test_more_members_than_a_delta_lists_are_left_as_bytes(tmp_path):
    one = zipped({"x": text(1, 60)})
    marks, budget = survey(one * 300, tmp_path, streams=100)

    assert len(marks) == 100
    assert budget.streams == 0


def test_headers_that_claim_anything_are_not_believed(tmp_path):
    """Lengths are where the stream ends, not what is claimed of it."""
    data = bytearray(zipped({"x": text(1, 200), "y": text(2, 200)}))
    struct.pack_into("<II", data, 18, 2**32 - 1, 2**32 - 1)
    marks, _ = survey(bytes(data), tmp_path)

    assert ["x", "y"] == [mark.name for mark in marks]


def test_streams_never_overlap(tmp_path):
    """Headers in the middle of streams, of names, and of each other."""
    heads = b"PK\x03\x04" * 50 + b"\x1f\x8b\x08" * 50 + b"\x78\x9c" * 500
    data = heads + gzip.compress(heads * 9 + text(3)) + heads
    marks, _ = survey(data, tmp_path)

    ends = [0, *(mark.end for mark in marks)]
    assert all(a <= mark.start for a, mark in zip(ends, marks, strict=False))


@pytest.mark.parametrize("cut", range(0, 400, 23))
def test_an_archive_that_is_cut_short_is_bytes_from_there(tmp_path, cut):
    data = zipped({"x": text(1, 100), "y": text(2, 100)})
    marks, _ = survey(data[: len(data) - cut], tmp_path)

    assert all(isinstance(mark, Stream) for mark in marks)
    assert len(marks) <= 2


def test_what_both_sides_have_is_left_packed(tmp_path):
    """A machine deflates what changed, not what did not."""
    docs = {f"{n}": text(n) for n in range(9)}
    sides = []
    for name, change in (("old", b""), ("new", b"changed")):
        docs["4"] += change
        sides.append(grow(tmp_path / name, {"a.zip": zipped(docs)}))
    (tmp_path / "base").mkdir()
    made = expansion.expand(
        tmp_path / "old", sides[0], tmp_path / "new", sides[1], tmp_path / "base"
    )

    assert made is not None
    (_, _, old), (_, _, new) = made.archives[0][0], made.archives[1][0]
    assert (len(old), len(new)) == (1, 1)


def program(length=40_000):
    """What is a program by its header, and nothing else."""
    head = bytearray(length)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<QQ", head, 32, 64, length - 64)
    struct.pack_into("<HHHH", head, 54, 56, 0, 64, 1)
    return bytes(head)


def entry(size):
    """The header of a tar's member."""
    head = bytearray(512)
    head[257:262] = b"ustar"
    head[124 : 124 + len(size)] = size
    return bytes(head)


@pytest.mark.parametrize(
    ("size", "found"),
    [
        (b"00000140000\0", True),
        (b"  140000 ", True),
        (b"\0\x00140000", True),
        (b"-1000", False),  # a step back to this very header, for ever
        (b"-140000", False),
        (b"+140000", False),
        (b"140_000", False),
        (b"0o140000", False),
        (b"\x80" + bytes(9) + b"\x02\x00", False),
    ],
)
def test_tar_whose_size_is_no_octal_number_ends_there(tmp_path, size, found):
    data = entry(size) + program() + bytes(20_000)
    marks, _ = survey(data, tmp_path)

    assert [mark.start for mark in marks] == [512] * found


def test_blocks_of_nothing_are_paid_for(tmp_path):
    """They inflate to no byte: each mark before them would have them read for free."""
    nothing = b"\0\0\0\xff\xff" * 100_000
    data = b"\x78\x9c" + nothing
    budget = Budget(tmp_path)
    budget.begin(len(data))
    before = budget.room

    assert finder.inflated(data, 2, budget) is None
    assert before - budget.room >= len(nothing)


def test_headers_of_what_is_stored_are_paid_for(tmp_path):
    """Each may lead to the same bytes with a long name, and a long table."""
    length = 40_000
    head = struct.pack(
        "<4sHHHIIIIHH", b"PK\x03\x04", 0, 0, 0, 0, 0, length, length, 60_000, 0
    )
    data = head * 1000 + bytes(60_000 + length)
    budget = Budget(tmp_path)
    budget.begin(len(data))
    before = budget.room

    assert not finder.survey(data, budget)
    assert before - budget.room >= 1000 * 256


def test_program_with_a_table_that_none_has_is_bytes(tmp_path):
    data = bytearray(program(4_000_000))
    struct.pack_into("<H", data, 56, 65_535)

    assert not survey(bytes(data), tmp_path)[0]
