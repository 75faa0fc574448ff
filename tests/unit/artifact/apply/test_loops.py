# SPDX-License-Identifier: Apache-2.0
"""The loops that apply a delta do the same, compiled or not, whatever they get."""

import os
import random
import struct
from array import array
from contextlib import contextmanager
from importlib import import_module

import pytest
from fakes.bundles import grow
from fakes.uncompiled import BOTH, use
from hypothesis import example, given
from hypothesis import strategies as st

from updaterd.artifact.apply import interpreted, operations, sources
from updaterd.artifact.apply.blocks import MAX_BLOCK
from updaterd.artifact.apply.sparse import BLOCK
from updaterd.artifact.codecs import STORED, Packed, Stream
from updaterd.errors import MalformedError

if os.environ.get("CI") == "true":
    compiled = import_module("updaterd.artifact.apply.compiled")
else:
    compiled = pytest.importorskip(
        "updaterd.artifact.apply.compiled", exc_type=ImportError
    )
native = import_module("updaterd.artifact._native")

LOOPS = (compiled, interpreted)
LONGEST_GAP = (1 << 24) - 1
SEEDS = st.integers(0, 2**64)
NUMBERS = st.one_of(
    st.integers(0, 300),
    st.integers(0, 2**48 - 1),
    st.sampled_from([2**47, 2**62, 2**63 - 1]),
)


@contextmanager
def stream(data):
    """Open a stream of these bytes."""
    fd = os.memfd_create("stream")
    try:
        os.write(fd, data)
        yield Stream(fd, Packed(STORED, len(data), len(data), 0), "it")
    finally:
        os.close(fd)


def outcome(function, *args):
    """Return what it makes, or in which words it refuses."""
    try:
        return function(*args)
    except MalformedError as error:
        return str(error)


def columns(block):
    if isinstance(block, str):
        return block
    names = ("starts", "ends", "lengths", "extras", "offsets")
    assert all(memoryview(getattr(block, n)).format == "q" for n in names)
    return [list(getattr(block, name)) for name in names], block.end


def both(decode, data, position, size):
    """Return the one outcome of decoding all blocks in `data`."""
    seen = []
    for loops in LOOPS:
        with stream(data) as source:
            seen.append(columns(outcome(decode, loops, source, position, size)))
    assert seen[0] == seen[1]
    return seen[0]


def _decode(loops, source, position, size):
    return loops.decode(source, position, size)


def _check(loops, source, position, size):
    return loops.check(source.read(source.remaining), position, size)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**48 - 1),
            st.integers(0, 2**48 - 1),
            st.integers(-(2**48) + 1, 2**48 - 1),
        ),
        min_size=1,
        max_size=40,
    ),
    NUMBERS,
    NUMBERS,
)
@example([(3, 2, -3), (1, 0, 2)], 7, 10)
@example([(0, 0, 5)], 7, 10)
@example([(0, 1, 5)] * 3, 7, 10)
def test_any_operations(steps, position, size):
    """The same columns, or the same words, wherever the operations lead."""
    data = b"".join(operations.encode(steps))
    seen = both(_decode, data, position, size)
    if not isinstance(seen, str):
        starts, ends, lengths, extras, made = seen[0]
        assert list(zip(lengths, extras, strict=True)) == [s[:2] for s in steps]
        assert made[-1] == sum(lengths) + sum(extras)
        assert all(0 <= a <= b <= size for a, b in zip(starts, ends, strict=True))


@given(st.lists(st.integers(0, 60), min_size=2, max_size=200), SEEDS)
def test_operations_that_stay_inside(lengths, seed):
    """Blocks as they are made: every column is what it was made from."""
    draw = random.Random(seed)
    size, at, steps = 10_000, 0, []
    for length in lengths:
        there = draw.randrange(size - 60)
        steps.append((length, draw.choice([0, 0, 7]), there - at - length))
        at = there
    steps[0] = (steps[0][0], len(steps), steps[0][2])
    seen = both(_decode, b"".join(operations.encode(steps)), 0, size)
    assert not isinstance(seen, str)


@given(st.integers(0, MAX_BLOCK + 2), st.binary(min_size=3, max_size=3), SEEDS, NUMBERS)
@example(0, b"\x06\x06\x06", 1, 2**62)
@example(0, b"\x07\x00\x00", 1, 2**62)
@example(MAX_BLOCK, b"\x00\x00\x00", 1, 2**62)
def test_any_block(count, widths, seed, size):
    """Bytes that mean nothing: the same words."""
    draw = random.Random(seed)
    widths = bytes(width % draw.choice([3, 8]) for width in widths)
    planes = draw.randbytes(min(count + 1, 50) * sum(widths))
    signs = bytes(draw.choice([0, 1, 1, 2][: draw.choice([3, 4])]) for _ in range(9))
    data = count.to_bytes(2, "little") + widths + planes + signs
    both(_decode, data, draw.randrange(2**50), size)


WORDS = st.one_of(
    st.integers(0, 300), st.integers(-300, 300), st.integers(-(2**63), 2**63 - 1)
)


@given(
    st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=30), NUMBERS, NUMBERS
)
@example([(0, 2**63 - 1, 0), (0, 2**63 - 1, 0)], 0, 0)
@example([(5, 0, 2**63 - 1)], 0, 5)
@example([(5, 0, -(2**63))], 0, 5)
@example([(5, 0, -(2**63) + 5)], 0, 5)
def test_any_triples(triples, position, size):
    """bsdiff's form, in which all numbers are wide: sums may overflow."""
    data = b"".join(struct.pack("<qqq", *triple) for triple in triples)
    both(_check, data, position, size)


def test_what_fits_a_batch():
    """The index after the last operation that stays within so many bytes."""
    data = b"".join(operations.encode([(0, 10, 0)] * 5))
    for loops in LOOPS:
        with stream(data) as source:
            block = loops.decode(source, 0, 0)
        assert [block.fits(0, most) for most in (9, 10, 29, 30, 99)] == [0, 1, 2, 3, 5]
        assert block.fits(3, 10) == 4


def runs_of(draw, mean):
    """Return a block of runs as planes, and how many bytes they change."""
    count = draw.choice([1, 2, 9, 300, 2000])
    gaps = [draw.randrange(2 * draw.choice(mean) + 1) for _ in range(count)]
    lengths = [draw.randrange(1, 2 * draw.choice(mean) + 2) for _ in range(count)]
    if not draw.randrange(3):
        gaps[-1], lengths[-1] = LONGEST_GAP, draw.choice([0, 0, 9])
    if not draw.randrange(12):
        lengths[draw.randrange(count)] = 0
    return gaps, lengths


def planes_of(gaps, lengths):
    raw = [gap.to_bytes(3, "little") for gap in gaps]
    rest = [length.to_bytes(2, "little") for length in lengths]
    planes = [bytes(row[i] for row in raw) for i in range(3)]
    planes += [bytes(row[i] for row in rest) for i in range(2)]
    return (len(gaps) - 1).to_bytes(2, "little") + b"".join(planes)


def applied(loops, runs, changes, old, steps):
    """Return all that a diff makes of old bytes, a step at a time."""
    out = []
    with stream(runs) as a, stream(changes) as b:
        diff = loops.Sparse(a, b)
        at = 0
        for kind, count, lengths, extras, extra in steps:
            if kind == "skip":
                diff.skip(count)
            else:
                piece = bytearray(old[at : at + count])
                args = array("q", lengths), array("q", extras), extra
                out.append(bytes(diff.add(piece, *args)))
            at += count
        diff.finish()
    return b"".join(out)


def steps_of(draw, size):
    """Return how a diff of `size` bytes is gone through."""
    steps, at = [], 0
    while at < size:
        count = min(draw.choice([1, 90, 5000, 1 << 18]), size - at)
        if draw.randrange(6):
            cuts = sorted(draw.randrange(count + 1) for _ in range(draw.randrange(9)))
            lengths = [b - a for a, b in zip([0, *cuts], [*cuts, count], strict=True)]
            extras = [draw.choice([0, 0, 3, 40]) for _ in lengths]
            extra = draw.randbytes(sum(extras))
            steps.append(("add", count, lengths, extras, extra))
        else:
            steps.append(("skip", count, (), (), b""))
        at += count
    return steps


def expected(blocks, changes, old, steps):
    """Return the same, literally: one byte after another."""
    diff, used = bytearray(), 0
    for gaps, lengths in blocks:
        for gap, length in zip(gaps, lengths, strict=True):
            diff += bytes(gap) + changes[used : used + length]
            used += length
    diff += bytes(max(0, len(old) - len(diff)))
    out, at = bytearray(), 0
    for kind, count, lengths, extras, extra in steps:
        taken = 0
        for length, more in zip(lengths, extras, strict=True):
            piece = zip(old[at : at + length], diff[at : at + length], strict=True)
            out += bytes((a + b) % 256 for a, b in piece)
            out += extra[taken : taken + more]
            taken += more
            at += length
        at += count if kind == "skip" else 0
    return bytes(out)


MEANS = st.sampled_from([[3], [20, 200], [300], [4, 4, 4, 4000]])


@pytest.mark.slow
@given(SEEDS, MEANS, st.integers(0, 3))
def test_any_sparse_diff(seed, mean, count):
    """Long runs and short ones, in blocks, met by steps of any length."""
    draw = random.Random(seed)
    blocks = [runs_of(draw, mean) for _ in range(count)]
    blocks = [(g, n) for g, n in blocks if LONGEST_GAP not in g and 0 not in n]
    changes = draw.randbytes(sum(sum(lengths) for _, lengths in blocks))
    size = sum(sum(gaps) + sum(lengths) for gaps, lengths in blocks)
    old = draw.randbytes(size + draw.choice([0, 700]))
    steps = steps_of(draw, len(old))
    runs = b"".join(planes_of(*block) for block in blocks)
    seen = [applied(loops, runs, changes, old, steps) for loops in LOOPS]
    assert seen[0] == seen[1] == expected(blocks, changes, old, steps)


@given(SEEDS, MEANS)
def test_any_damaged_diff(seed, mean):
    """Runs that are cut, too many, or too many changes: refused by both, or by none."""
    draw = random.Random(seed)
    gaps, lengths = runs_of(draw, mean)
    runs = bytearray(planes_of(gaps, lengths))
    changes = draw.randbytes(max(0, sum(lengths) + draw.choice([0, 0, 0, -1, 1])))
    for _ in range(draw.randrange(3)):
        runs[draw.randrange(len(runs))] ^= 1 << draw.randrange(8)
    if not draw.randrange(4):
        del runs[draw.randrange(len(runs)) :]
    size = min(sum(gaps) + sum(lengths), 1 << 21)
    old = bytes(max(1, size + draw.choice([0, 0, -1, 40])))
    steps = steps_of(draw, len(old))
    seen = []
    for loops in LOOPS:
        said = outcome(applied, loops, bytes(runs), changes, old, steps)
        seen.append(said if isinstance(said, bytes) else "refused")
    assert seen[0] == seen[1]


def test_a_run_that_changes_nothing():
    """It would cost time for nothing; only the longest gap goes on in another run."""
    for gap, fine in ((LONGEST_GAP, True), (LONGEST_GAP - 1, False), (0, False)):
        runs = planes_of([gap, 1], [0, 1])
        for loops in LOOPS:
            with stream(runs) as a, stream(b"x") as b:
                said = outcome(loops.Sparse(a, b).skip, LONGEST_GAP + 2)
            assert said == (None if fine else "runs: one changes nothing")


def test_more_runs_than_a_block_may_have():
    """Refused before any is read."""
    data = BLOCK.to_bytes(2, "little") + bytes(99)
    for loops in LOOPS:
        with stream(data) as a, stream(b"") as b:
            said = outcome(loops.Sparse(a, b).skip, 1)
        assert said == "runs: a block is too large"


def test_a_dense_diff():
    """Every byte is added, modulo 256; what is new goes in between."""
    draw = random.Random(3)
    for size in (*range(40), 5000):
        old, diff, extra = (draw.randbytes(size) for _ in range(3))
        cut = draw.randrange(size + 1)
        lengths, extras = array("q", [cut, size - cut]), array("q", [size, 0])
        made = bytes((a + b) % 256 for a, b in zip(old, diff, strict=True))
        for loops in LOOPS:
            with stream(diff) as source:
                seen = loops.Dense(source).add(bytearray(old), lengths, extras, extra)
            assert seen == made[:cut] + extra + made[cut:]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Files of all kinds, and their bytes one after another."""
    root = tmp_path_factory.mktemp("tree")
    draw = random.Random(5)
    sizes = {"a": 7, "b": 0, "c": 70_000, "d": sources.LONG + 99, "e": 3, "f": 0}
    sizes |= {f"g{n}": 200 for n in range(40)}
    sizes |= {"h": sources.LONG, "i": 300_000, "missing": 500, "short": 100_000}
    sizes |= {"shorter": sources.LONG + 1}
    contents = {name: draw.randbytes(size) for name, size in sizes.items()}
    files = grow(root / "old", contents)
    (root / "old" / "missing").unlink()
    for name in ("short", "shorter"):
        (root / "old" / name).write_bytes(b"x" * 10)
    gone = {"missing", "short", "shorter"}
    parts = [
        bytes(file.length) if file.path in gone else contents[file.path]
        for file in files
    ]
    made = grow(root / "new", {"m": draw.randbytes(4000), "n": draw.randbytes(99)})
    parts += [(root / "new" / file.path).read_bytes() for file in made]
    return root, files, made, b"".join(parts)


def ranges(draw, size, near):
    out, at = [], draw.randrange(size)
    for _ in range(draw.randrange(1, 60)):
        if not draw.randrange(near):
            at = draw.randrange(size)
        length = draw.choice([0, 1, 40, 40, 3000, 90_000])
        low = min(max(0, at + draw.choice([0, 0, -50, 200])), size)
        high = min(low + length, size)
        out.append((low, high))
        at = min(high, size - 1)
    return out


@given(SEEDS, st.sampled_from([1, 4, 50]), st.integers(0, 2))
def test_any_ranges_of_a_tree(tree, seed, near, allowed):
    """Any number of them, of files long and short; zeros where a file is not there."""
    root, files, made, data = tree
    limit = sum(f.length for f in (*files, *made[:allowed]))
    draw = random.Random(seed)
    for loops in LOOPS:
        draw.seed(seed)
        old = loops.Concatenation(root / "old", files, root / "new", made)
        try:
            old.allow(allowed)
            for _ in range(3):
                some = ranges(draw, len(data), near)
                starts, ends = (array("q", c) for c in zip(*some, strict=True))
                seen = outcome(old.gather, starts, ends)
                if all(low == high or high <= limit for low, high in some):
                    assert seen == b"".join(data[a:b] for a, b in some)
                    assert isinstance(seen, bytearray)
                else:
                    assert seen == sources.NOT_MADE
        finally:
            old.close()


def test_a_file_at_hand_stays_open(tmp_path):
    """One that was opened long ago and is read now is not closed for another.

    The other would get its descriptor, and be read in its place.
    """
    most = sources._MOST_OPEN
    contents = {f"f{n:03}": bytes([n]) * 9000 for n in range(most + 1)}
    files = grow(tmp_path / "old", contents)
    order = [*range(most), 0, most, 0]
    starts = array("q", [9000 * number for number in order])
    starts[-1] += 5000  # in another block
    ends = array("q", [start + 100 for start in starts])
    for loops in LOOPS:
        old = loops.Concatenation(tmp_path / "old", files, tmp_path)
        try:
            made = old.gather(starts, ends)
        finally:
            old.close()
        assert made == b"".join(bytes([number]) * 100 for number in order)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.lists(WORDS, max_size=20).map(lambda v: array("q", v).tobytes()),
        ),
        min_size=4,
        max_size=4,
    ),
    st.lists(WORDS, min_size=5, max_size=5),
    st.lists(st.integers(-1, 9), min_size=3, max_size=3),
)
def test_arguments_that_nobody_would_hand_over(buffers, numbers, widths):
    """Buffers that do not fit together, and any numbers: refused, or harmless."""
    a, b, c, d = buffers
    i, j, k = widths

    def pieces(position):
        return numbers[4], numbers[3], -1

    calls = [
        (native.operations, a, i, j, k, numbers[0], numbers[1]),
        (native.triples, a, numbers[0], numbers[1]),
        (native.runs, a, numbers[0]),
        (native.changed, a, i, numbers[0], numbers[1]),
        (native.changed, a, numbers[2], numbers[0], numbers[1]),
        (native.add, bytearray(b), i, a, j, numbers[0], numbers[1], c),
        (native.add, bytearray(b), numbers[3], a, numbers[2], numbers[0], 5, c),
        (native.add_all, bytearray(a), b),
        (native.weave, a, b, c, d),
        (native.gather, a, b, pieces),
        (native.gather, a, a, pieces),
    ]
    for function, *args in calls:
        try:
            function(*args)
        except (ValueError, MemoryError) as error:
            assert str(error) or isinstance(error, MemoryError)  # noqa: PT017 - either


def test_what_asks_for_pieces_may_fail():
    """Its own error passes through; an answer that is none is refused."""
    columns = array("q", [0]), array("q", [4])

    def broken(position):
        raise OSError(position)

    for piece, error in (
        (broken, OSError),
        (lambda _: None, TypeError),
        (lambda _: (0, 4), TypeError),
        (lambda _: (0, 4, "file"), TypeError),
        (lambda _: (1, 4, -1), ValueError),
        (lambda _: (0, 0, -1), ValueError),
        (lambda _: (-1, 4, -1), ValueError),
    ):
        with pytest.raises(error):
            native.gather(*columns, piece)
    with pytest.raises(TypeError):
        native.add_all(b"read only", b"read only")


@pytest.mark.parametrize("which", BOTH)
def test_the_loops_that_are_taken(which, monkeypatch):
    """The compiled ones, unless there are none."""
    use(which, monkeypatch)
    loops = import_module("updaterd.artifact.apply.loops").best()
    assert loops.__name__ == f"updaterd.artifact.apply.{which}"
