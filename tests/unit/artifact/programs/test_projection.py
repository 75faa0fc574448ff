# SPDX-License-Identifier: Apache-2.0
"""Deltas with images make the signed trees, whatever is in them."""

import random
import struct

import pytest
from fakes.bundles import delta_job, grow, perform, run
from fakes.programs import control, delta, moved, program, rows
from fakes.uncompiled import BOTH, use
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from updaterd.artifact import script
from updaterd.artifact.apply.blocks import Block
from updaterd.artifact.programs import projection
from updaterd.artifact.programs import stream as images
from updaterd.artifact.programs.image import WORDS
from updaterd.artifact.programs.projection import MAX_OPERATIONS, Projection
from updaterd.artifact.script import MADE, Item, Script
from updaterd.artifact.verify import verify_tree
from updaterd.core.tree import File
from updaterd.errors import MalformedError, RejectedError

CODEC = "delta2+xz"


@pytest.fixture(params=BOTH, autouse=True)
def module(request, monkeypatch):
    """Each of the implementations, where the machine has that one."""
    use(request.param, monkeypatch)
    return projection.implementation()


def _job(base, before, after, streams, **changes):
    (base / "delta").write_bytes(delta(streams))
    return delta_job(base, base / "delta", before, after, **{"codec": CODEC} | changes)


def test_programs_arrive_with_their_references_re_aimed(tmp_path):
    """From old ones and from made ones, several files in one batch."""
    before, after, streams = moved(tmp_path)
    job = _job(tmp_path, before, after, streams)
    report = perform(job)

    assert not verify_tree(job.destination, after)
    assert not report.missing
    middle = _job(tmp_path, before, after, streams, files=None)
    assert perform(middle).files == after


def test_without_images_they_would_not(tmp_path):
    """The same copies alone make something else: it is the images that count."""
    before, after, streams = moved(tmp_path)
    for empty in (streams[:5], [*streams[:5], images.encode({})]):
        codec = CODEC if len(empty) == 6 else "delta1+xz"
        with pytest.raises(RejectedError) as error:
            perform(_job(tmp_path, before, after, empty, codec=codec))
        assert error.value.code == "bad_output"


@pytest.mark.parametrize("done", ["a", "b", "c", "d", "abc", "bd", "abde"])
def test_what_is_there_already_is_not_made_again(tmp_path, done):
    """Others are, also from what is there."""
    before, after, streams = moved(tmp_path)
    job = _job(tmp_path, before, after, streams, done=frozenset(done))
    for name in done:
        grow(job.destination, {name: (tmp_path / "new" / name).read_bytes()})
    report = perform(job)

    assert report.files_changed == 5 - len(done)
    assert not verify_tree(job.destination, after)


def test_a_damaged_old_program_costs_what_depends_on_it(tmp_path):
    """It is named, and everything else is in place."""
    before, after, streams = moved(tmp_path)
    path = tmp_path / "old" / "p"
    data = bytearray(path.read_bytes())
    data[0x500] ^= 0xFF
    path.write_bytes(data)
    report = perform(_job(tmp_path, before, after, streams))

    assert report.bad_old_files == ("p",)
    assert {"b"} <= set(report.missing) <= {"b", "d"}


@pytest.mark.parametrize("codec", ["delta1+xz", CODEC])
@pytest.mark.parametrize("count", [4, 5, 6, 7])
def test_a_delta_has_the_streams_of_its_codec(tmp_path, codec, count):
    """Five, or six with images: the manifest says which."""
    before, after, streams = moved(tmp_path)
    streams = [*streams, b""][:count]
    if codec == CODEC and count == 6:
        return
    with pytest.raises(RejectedError) as error:
        perform(_job(tmp_path, before, after, streams, codec=codec))
    if (codec, count) != ("delta1+xz", 5):
        assert error.value.code == "bad_bundle"


def test_the_images_may_not_be_longer_than_their_limit(tmp_path):
    """What is declared is refused before it is read."""
    before, after, streams = moved(tmp_path)
    streams[5] += bytes(images.MAX_BYTES)
    with pytest.raises(MalformedError, match="images"):
        perform(_job(tmp_path, before, after, streams))


WORDY = 700_000


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 100, 200_000])
def test_long_copies_are_made_in_pieces(tmp_path, module, ahead):
    """Of 256 KiB from their beginning, wherever batches and files begin."""
    draw = random.Random(3)
    data = b"".join(
        struct.pack("<Q", 0x10000 + draw.randrange(WORDY)) for _ in range(WORDY // 8)
    )
    image = rows(0, 0x10000, WORDY, WORDY, 0), rows(WORDS, 0, WORDY, *[0] * 5), b""
    target = rows(0, 0x30000, WORDY + 8, WORDY + 8, 0), b"", b""
    one = module.Projector(
        lambda low, high: data[low:high], rows(0), rows(WORDY), [module.Image(*image)]
    )
    columns = rows(0, 4), rows(4, WORDY - 4), rows(0, 12)
    one.aim(module.Image(*target), *columns)
    made = bytearray(data)
    one.project(made, *columns)
    assert made != data

    before = grow(tmp_path / "old", {"p": data, "t": b"t" * ahead})
    files = {"a": b"t" * ahead, "b": bytes(made[:4]) + b"inserted" + made[4:]}
    after = grow(tmp_path / "new", files)
    # Short files come behind long ones, so the text must be long to come first.
    names = sorted(files, key=lambda name: (len(files[name]) < script.LONG, name))
    items = [Item(name, MADE, 0o644, len(files[name])) for name in names]
    reads = {"a": [(WORDY, ahead, 0)], "b": [(0, 4, 8), (4, WORDY - 4, 0)]}
    streams = [
        script.encode(before, items, [0, 1], [], set()),
        control(read for name in names for read in reads[name]),
        *(b"", b"", b"inserted"),
        images.encode({0: image, 2 + names.index("b"): target}),
    ]
    job = _job(tmp_path, before, after, streams)
    perform(job)

    assert not verify_tree(job.destination, after)


def _plan(old, made, places=()):
    files = tuple(File(f"o{n}", "", length, 0o644) for n, length in enumerate(old))
    items = tuple(
        Item(f"m{n:02}", MADE, 0o644, length) for n, length in enumerate(made)
    )
    return Script((), items, files, tuple(places))


def _block(operations, end=0):
    starts, lengths, extras = zip(*operations, strict=True)
    made, at = [0], 0
    for _, length, extra in operations:
        at += length + extra
        made.append(at)
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    columns = (
        memoryview(rows(*c)).cast("q") for c in (starts, ends, lengths, extras, made)
    )
    return Block(*columns, end)


SEGMENT = rows(0, 0x1000, 10, 10, 1), b"", b""


@pytest.mark.parametrize(
    ("operations", "fits"),
    [
        ([(0, 30, 0)], False),  # over both ends of the second
        ([(0, 10, 0), (0, 20, 0)], False),  # over its end
        ([(0, 12, 0), (0, 18, 0)], False),  # over its beginning
        ([(0, 8, 2), (0, 10, 0), (0, 10, 0)], True),
        ([(0, 8, 4), (0, 8, 0), (0, 10, 0)], True),  # what is new may
        ([(0, 8, 2), (0, 5, 0), (0, 5, 9), (0, 1, 0)], True),
        ([(0, 0, 10), (0, 11, 0), (0, 9, 0)], False),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_no_copy_goes_over_the_end_of_a_program(module, operations, fits, apart):
    """In whatever block it is; over other files' ends it may."""
    blocks = [_block([o]) for o in operations] if apart else [_block(operations)]
    data = images.encode({0: SEGMENT, 2: SEGMENT})

    def make(plan):
        return Projection(data, plan, iter(blocks), bytes, module)

    if fits:
        make(_plan([40], [10, 10, 10]))
    else:
        with pytest.raises(MalformedError, match="two programs"):
            make(_plan([40], [10, 10, 10]))
    data = images.encode({0: SEGMENT})
    make(_plan([40], [10, 10, 10]))


@pytest.mark.slow
def test_a_delta_with_images_has_a_quarter_million_operations_at_most(module):
    """All of them are held: more would not fit."""
    operations = [(0, 1, 0)] * 4096

    def make(count):
        blocks = (_block(operations) for _ in range(count))
        plan = _plan([40], [4096 * count])
        Projection(images.encode({}), plan, blocks, bytes, module)

    make(MAX_OPERATIONS // 4096)
    with pytest.raises(MalformedError, match="too many"):
        make(MAX_OPERATIONS // 4096 + 1)


def test_images_of_files_beyond_4_gib_are_refused(module):
    """Places in a file have 32 bits."""
    plan = _plan([2**32], [10])
    with pytest.raises(MalformedError):
        Projection(images.encode({0: SEGMENT}), plan, [], bytes, module)


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_files_are_told_apart_however_the_operations_are_batched(module, seed, size):
    """What is projected in one go and in many comes out the same."""
    draw = random.Random(seed)
    old, image = program()
    lengths = [draw.choice([0, 1, 900, 5000]) for _ in range(8)]
    known = {0: image}
    for index, length in enumerate(lengths):
        if draw.randrange(2):
            shift = 0x10000 + 64 * index
            known[1 + index] = rows(0, shift, length, 99_999, 1), b"", b""
    operations = []
    for length in lengths:
        left = length
        while left:
            count = draw.randrange(1, left + 1)
            copied = draw.randrange(count + 1)
            start = draw.randrange(len(old) - copied + 1)
            operations.append((start, copied, count - copied))
            left -= count
    if not operations:
        return

    def made(step, per_block):
        blocks = [
            _block(operations[at : at + per_block])
            for at in range(0, len(operations), per_block)
        ]
        one = Projection(
            images.encode(known),
            _plan([len(old)], lengths),
            blocks,
            lambda low, high: old[low:high],
            module,
        )
        out, base = [], 0
        for block in blocks:
            for first in range(0, len(block.starts), step):
                part = slice(first, first + step)
                starts, counts = block.starts[part], block.lengths[part]
                data = bytearray().join(
                    old[s : s + n] for s, n in zip(starts, counts, strict=True)
                )
                one.project(data, starts, counts, block.offsets[:-1][part], base)
                out.append(data)
            base += block.offsets[-1]
        return bytearray().join(out)

    assert made(size, size + 3) == made(1, 1) == made(10**6, 10**6)


def test_the_worker_projects_within_its_memory(tmp_path):
    """In a process of its own, with what it may take there."""
    before, after, streams = moved(tmp_path)
    job = _job(tmp_path, before, after, streams)
    run(job)

    assert not verify_tree(job.destination, after)
