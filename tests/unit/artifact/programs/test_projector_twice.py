# SPDX-License-Identifier: Apache-2.0
"""Both implementations of references do the same: compiled, and in Python."""

import os
import random
import struct
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from fakes import references as python
from fakes.programs import program, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from updaterd.artifact.programs.image import (
    ARM,
    CODE,
    FRAMES,
    FUNCTIONS,
    TABLE,
    WORDS,
)
from updaterd.release.bundles.programs import elf

native = (
    import_module("updaterd.artifact._native")
    if os.environ.get("CI") == "true"  # there it must be
    else pytest.importorskip("updaterd.artifact._native", exc_type=ImportError)
)

SEEDS = st.integers(0, 2**64)
LARGE = (), (), (2**24 - 20_000, 2**25), (2**31 - 20_000, 2**32)
FAR = 0, 2**24, -(2**24), 2**25, -(2**25), 2**31 - 5001, -(2**31) + 5001
TOKENS = (
    lambda draw: draw.choice([b"\xe8", b"\xe9", b"\x0f\x80", b"\x0f\x8f", b"\x0f\x0f"]),
    lambda draw: bytes([draw.choice([5, 0xD, 0x15, 0x1D, 0x25, 0x2D, 0x35, 0x3D])]),
    lambda draw: struct.pack("<i", draw.randrange(-70_000, 70_000)),
    lambda draw: struct.pack("<Q", draw.randrange(200_000)),
    lambda draw: struct.pack("<I", draw.randrange(64)),
    lambda draw: draw.randbytes(draw.randrange(9)),
    lambda draw: (
        draw.choice([b"\xe8", b"\x48\x8d\x05", b"\x0f\x84"])
        + struct.pack("<i", draw.choice(FAR) + draw.randrange(-5000, 5000))
    ),
    lambda draw: bytes(draw.randrange(40)),
    lambda draw: b"\xff" * draw.randrange(9),
)


PAIRED = [  # what takes a page: ADD, loads and stores of all widths
    *(0x91000000, 0x39000000, 0x39400000, 0x79000000, 0xB9400000, 0xF9400000),
    *(0xFD000000, 0x3D800000, 0x3DC00000, 0xF9800000, 0x91400000),
]
ALONE = [
    *(0x14000000, 0x94000000, 0x54000000, 0x54000010, 0x34000000, 0xB5000000),
    *(0x36000000, 0xB7000000, 0x18000000, 0xDC000000, 0x10000000, 0x90000000),
]


def _step(draw):
    """Return an AArch64 instruction, mostly with an address that is near."""
    word = draw.choice(ALONE)
    by = draw.randrange(-1500, 1500)
    low, count = (5, 14) if word >> 24 & 0x7E == 0x36 else (5, 19)
    if word in {0x14000000, 0x94000000}:
        low, count = 0, 26
    if word in {0x90000000, 0x10000000} and draw.randrange(3):
        by = draw.randrange(-3, 4)
    word |= (by & (1 << count) - 1) << low
    if draw.randrange(4):
        return word | draw.randrange(4) * (low == 5)
    return draw.randrange(1 << 32)


def _pair(draw):
    """Return the load of a page, and what may take it, with others between them."""
    number = draw.randrange(3)
    words = [0x90000000 | draw.randrange(4) << 29 | number]
    if not draw.randrange(5):
        words[0] |= draw.randrange(1 << 19) << 5
    for _ in range(draw.randrange(1, 10)):
        takes = draw.choice(PAIRED) | draw.randrange(4) | draw.randrange(4096) << 10
        takes |= draw.choice([number, number, draw.randrange(32)]) << 5
        words.append(takes if draw.randrange(2) else _step(draw))
    return struct.pack(f"<{len(words)}I", *words)


ARM_TOKENS = (
    lambda draw: struct.pack("<I", _step(draw)),
    _pair,
    _pair,
    lambda draw: struct.pack("<Q", draw.randrange(200_000)),
    lambda draw: draw.randbytes(4 * draw.randrange(3)),
    lambda draw: bytes(4 * draw.randrange(10) + (not draw.randrange(30))),
)


def _data(draw, size, tokens=TOKENS):
    out = bytearray()
    while len(out) < size:
        out += draw.choice(tokens)(draw)
    return bytes(out[:size])


def _segments(draw, size):
    out, offset, address = [], draw.randrange(100), draw.randrange(5000)
    for _ in range(draw.randrange(1, 5)):
        stored = min(draw.randrange(size), size - offset)
        memory = stored + draw.choice([0, 0, 500, *draw.choice(LARGE)])
        out.append((offset, address, stored, memory, draw.randrange(2)))
        offset = min(offset + stored + draw.choice([0, 7]), size)
        address += memory + draw.choice([0, 0, 4096])
    return out


def _regions(draw, segments, code):
    out, end = [], 0
    for offset, address, stored, _, _ in segments:
        end = max(end, offset)
        while end < offset + stored and draw.randrange(6):
            start = draw.randrange(end, offset + stored)
            length = draw.randrange(offset + stored - start + 1)
            kind = draw.choice([code, code, WORDS, FRAMES, TABLE, FUNCTIONS])
            given = [draw.choice([0, address, 99_999]) for _ in range(5)]
            if kind == FUNCTIONS:
                given[0] = draw.randrange(min(length // 8, 50) + 1)
            out.append((kind, start, length, *given))
            end = start + length
    return out


def _tables(draw, segments, size):
    out, end = [], 0
    for offset, _, stored, _, _ in segments:
        end = max(end, offset)
        while end + 4 < offset + stored and draw.randrange(5):
            start = draw.randrange(end, offset + stored - 4)
            entries = draw.randrange(1, max(2, (offset + stored - start) // 8))
            out.append((start, entries))
            end = start + 4 * entries
    return out


def _image(draw, size, code=CODE):
    """Return rows of an image: mostly a possible one."""
    segments = _segments(draw, size)
    regions = _regions(draw, segments, code)
    tables = _tables(draw, segments, size) if draw.randrange(2) else []
    if draw.randrange(2):  # tables may lie among words only
        regions = [(WORDS if tables else kind, *rest) for kind, *rest in regions]
    parts = [list(part) for part in (segments, regions, tables)]
    if not draw.randrange(20) and any(parts):
        part = draw.choice([part for part in parts if part])
        row = list(draw.choice(part))
        row[draw.randrange(len(row))] += draw.choice([-1, 1, 2**40, -(2**40)])
        part[draw.randrange(len(part))] = row
    return [rows(*(number for row in part for number in row)) for part in parts]


def _copies(draw, size, most):
    starts, lengths, news, at = [], [], [], draw.randrange(50)
    for _ in range(draw.randrange(most)):
        start = draw.randrange(size)
        length = min(draw.choice([3, 70, 900, 20_000]), size - start)
        starts.append(start)
        lengths.append(length)
        news.append(at)
        at += length + draw.randrange(50)
    return starts, lengths, news


def _both(act):
    """Return what both implementations answer; the kind of error, if it is one."""
    out = []
    for module, projector in ((python, python.Oracle), (native, native.Projector)):
        try:
            out.append(act(module, projector))
        except ValueError:
            out.append(ValueError)
    return out


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(SEEDS)
def test_both_do_the_same_with_whatever_files_and_copies(seed):
    """Images that fit or not, copies that overlap and go over the ends of files.

    Of both processors, also one's code described as the other's.
    """
    draw = random.Random(seed)
    sizes = [draw.choice([300, 5000, 40_000]) for _ in range(draw.randrange(1, 4))]
    codes = [draw.choice([CODE, ARM]) for _ in sizes]
    whole = b"".join(
        _data(draw, size, ARM_TOKENS if code == ARM else TOKENS)
        for size, code in zip(sizes, codes, strict=True)
    )
    images = [
        _image(draw, size, code if draw.randrange(8) else draw.choice([CODE, ARM]))
        if draw.randrange(4)
        else None
        for size, code in zip(sizes, codes, strict=True)
    ]
    targets = [_image(draw, max(sizes) + 1000) for _ in range(2)]
    copies = [_copies(draw, len(whole), 30) for _ in targets]
    begins = [sum(sizes[:index]) for index in range(len(sizes))]

    def act(module, projector):
        made = [image and module.Image(*image) for image in images]
        one = projector(
            lambda low, high: whole[low:high], rows(*begins), rows(*sizes), made
        )
        out = []
        for target, (starts, lengths, news) in zip(targets, copies, strict=True):
            columns = rows(*starts), rows(*lengths), rows(*news)
            one.aim(module.Image(*target), *columns)
            data = bytearray().join(
                whole[s : s + n] for s, n in zip(starts, lengths, strict=True)
            )
            one.project(data, *columns)
            out.append(bytes(data))
            for index in range(len(sizes)):
                for act in (one.mask, one.label):
                    data = bytearray(whole)
                    more = () if act == one.mask else (bool(draw.randrange(2)),)
                    if images[index] is not None:
                        act(data, index, *more)
                    out.append(bytes(data))
        for image, size, begin in zip(made, sizes, begins, strict=True):
            if image is not None:
                out.append(module.tables(whole[begin : begin + size], image))
        return out

    state = draw.getstate()

    def fresh(module, projector):
        draw.setstate(state)
        return act(module, projector)

    one, other = _both(fresh)
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/bin/bash", "/lib/x86_64-linux-gnu/libc.so.6"])
def test_both_do_the_same_with_programs_of_this_system(path):
    """Real code, moved: thousands of references of every kind but Go's."""
    file = Path(path)
    if not file.exists():
        pytest.skip(f"no {path}")
    data = file.read_bytes()
    described = elf.describe(data)
    assert described is not None
    segments, regions = described.segments, described.regions
    rough = native.Image(segments, regions, b"")
    tables = native.tables(data, rough)
    assert tables == python.tables(data, python.Image(segments, regions, b""))
    draw = random.Random(1)
    cuts = sorted({0, len(data), *(draw.randrange(len(data)) for _ in range(300))})
    starts, lengths = cuts[:-1], [b - a for a, b in pairwise(cuts)]
    news = [start + 16 * index for index, start in enumerate(starts)]
    moved = list(struct.iter_unpack("=5q", segments))
    wider = [(o, 4 * a, s, m, c) for o, a, s, m, c in moved]
    columns = rows(*starts), rows(*lengths), rows(*news)

    def act(module, projector):
        one = projector(
            lambda low, high: data[low:high],
            rows(0),
            rows(len(data)),
            [module.Image(segments, regions, tables)],
        )
        one.aim(
            module.Image(rows(*(n for row in wider for n in row)), b"", b""), *columns
        )
        out = [bytearray(data) for _ in range(3)]
        one.project(out[0], *columns)
        one.mask(out[1], 0)
        one.label(out[2], 0, True)
        return out

    one, other = _both(act)
    assert one[0] != data
    assert one == other


def test_both_find_all_of_a_little_program():
    """What is masked is what the program's own references are: 20 kinds of places."""
    data, image = program()

    def act(module, projector):
        one = projector(
            lambda low, high: data[low:high],
            rows(0),
            rows(len(data)),
            [module.Image(*image)],
        )
        out = bytearray(data)
        one.mask(out, 0)
        return out

    one, other = _both(act)
    assert one == other
    assert one.count(b"\4\0\0\0") >= 30
