# SPDX-License-Identifier: Apache-2.0
"""Deltas whose images mean harm: refused by a typed error, or exactly the signed tree.

Nobody but who signs releases can send them; still they may neither crash the worker nor
take more memory than it has.
"""

import random

import pytest
from fakes.bundles import delta_job, grow, perform
from fakes.programs import control, delta, moved, program, rows
from fakes.uncompiled import BOTH, ask, use

from updaterd.artifact import script
from updaterd.artifact.apply.blocks import MAX_BLOCK
from updaterd.artifact.apply.operations import encode
from updaterd.artifact.programs import projection
from updaterd.artifact.programs import stream as images
from updaterd.artifact.programs.image import FRAMES, TABLE
from updaterd.artifact.script import MADE, Item
from updaterd.artifact.varint import pack as number
from updaterd.artifact.verify import verify_tree
from updaterd.artifact.worker.answers import Done, Failure
from updaterd.core.tree import File
from updaterd.errors import MalformedError, RejectedError

CODEC = "delta2+xz"


@pytest.fixture(params=BOTH, autouse=True)
def loops(request, monkeypatch):
    """What is refused must not depend on a compiler."""
    use(request.param, monkeypatch)
    return request.param


@pytest.fixture
def base(tmp_path):
    """Trees with programs, their listings, and the streams of an honest delta."""
    return tmp_path, *moved(tmp_path)


def _job(root, before, after, streams, **changes):
    (root / "hostile").write_bytes(delta(streams))
    changes = {"codec": CODEC} | changes
    return delta_job(root, root / "hostile", before, after, **changes)


def _mutated(draw, data):
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 6))):
        at = draw.randrange(len(out))
        match draw.randrange(4):
            case 0:
                out[at] ^= 1 << draw.randrange(8)
            case 1:
                out[at] = draw.choice((0, 1, 2, 3, 4, 0x7F, 0xFF))
            case 2:
                out[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(4))
            case _:
                other = draw.randrange(len(out))
                out[at : at + 8] = out[other : other + 8]
    return bytes(out)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_images_are_refused_or_harmless(base, seed):
    """Also where no listing is signed: then the tree id is."""
    root, before, after, streams = base
    draw = random.Random(seed)
    refused = 0
    for _ in range(60):
        changed = [*streams[:5], _mutated(draw, streams[5])]
        files = after if draw.randrange(2) else None
        job = _job(root, before, after, changed, files=files)
        try:
            perform(job)
        except RejectedError:
            refused += 1
        else:
            assert not verify_tree(job.destination, after)
    assert refused


@pytest.mark.parametrize("seed", range(2))
def test_mutated_programs_cost_no_more_than_their_files(base, seed):
    """The image is honest and the old program another: what it makes is named."""
    root, before, after, streams = base
    draw = random.Random(seed)
    old, _ = program()
    for _ in range(30):
        (root / "old" / "p").write_bytes(
            _mutated(draw, old).ljust(len(old))[: len(old)]
        )
        job = _job(root, before, after, streams)
        report = perform(job)
        assert set(report.bad_old_files) <= {"p"}
        assert set(report.missing) <= {"b", "d"}


SIZE = 1 << 18
SEGMENT = number(1, 0, 0, SIZE, SIZE, 0)


def _many(count, body):
    """Return so many images that say the same, of one file after another."""
    return number(count) + (number(0) + body) * count


EMPTY = number(32) + b"".join(number(0, n, 0, 0, 0) for n in range(32))
GREEDY = {
    "segments": _many(4096, EMPTY + b"\0\0"),
    "regions": _many(256, SEGMENT + number(256) + bytes(3 * 256) + b"\0"),
    "too many regions": _many(4096, SEGMENT + number(256) + bytes(3 * 256) + b"\0"),
    "tables": _many(4, SEGMENT + number(0, 65536) + bytes(65536) + b"\1" * 65536),
    "too many tables": _many(
        31, SEGMENT + number(0, 65536) + bytes(65536) + b"\1" * 65536
    ),
    "numbers": b"\xff" * (4 << 20),
    "nothing": bytes(4 << 20),
}


@pytest.mark.parametrize("name", GREEDY)
def test_greedy_images_stay_within_the_worker(tmp_path, loops, name):
    """As many as may be, and more: memory is bounded by the format."""
    before = grow(tmp_path / "old", {"p": bytes(SIZE)})
    after = grow(tmp_path / "new", {"z": bytes(100)})
    plan = script.encode(before, [Item("z", MADE, 0o644, 100)], [0] * 4096, [], set())
    assert len(GREEDY[name]) <= images.MAX_BYTES
    streams = [plan, control([(0, 100, 0)]), b"", b"", b"", GREEDY[name]]
    end = ask(loops, _job(tmp_path, before, after, streams)).end

    print(name, end, _mib(end.used))
    harmless = {"segments", "regions", "tables"}
    assert isinstance(end, Failure) == (name not in harmless)
    if isinstance(end, Failure):
        assert "malformed" == end.code
    assert end.used.peak_rss < 64 * 2**20


def _mib(used):
    return f"{used.peak_rss / 2**20:.0f} MiB, {used.cpu_s:.1f} s"


@pytest.mark.parametrize("kind", [TABLE, FRAMES])
@pytest.mark.parametrize("sources", [1, 9])
def test_greedy_lists_do_not_fit_into_the_worker(tmp_path, loops, kind, sources):
    """A million references each, in files that one made file is copied from."""
    size = 20 << 20
    (tmp_path / "old").mkdir()
    with (tmp_path / "old" / "p").open("wb") as file:
        # Frames of 16 bytes with two references each, or a table of zeros.
        if kind == FRAMES:
            file.write((12).to_bytes(4, "little") + b"\1" + bytes(11))
            frame = (12).to_bytes(4, "little") + b"\1" + bytes(11)
            file.write(frame * ((1 << 19) - 1))
        file.truncate(size)
    before = grow(tmp_path / "old", {})
    made = bytes(16 * sources)
    after = grow(tmp_path / "new", {"z": made})
    items = [Item("z", MADE, 0o644, len(made))]
    plan = script.encode(before, items, [0] * sources, [], set())
    length = 4 << 20 if kind == TABLE else 8 << 20
    segments = rows(0, 0, size, size, 1)
    image = segments, rows(kind, 0, length, *[0] * 5), b""
    stream = images.encode(
        dict.fromkeys(range(sources), image)
        | {sources: (rows(0, 0, 16, 16, 1), b"", b"")}
    )
    reads = [(size * number + size - 16, 16, 0) for number in range(sources)]
    streams = [plan, control(reads), b"", b"", b"", stream]
    end = ask(loops, _job(tmp_path, before, after, streams)).end

    print(kind, sources, end, _mib(end.used))
    assert end.used.peak_rss < 128 * 2**20
    if sources == 1:
        assert isinstance(end, Done)


def test_copies_that_go_into_two_programs_are_refused_before_anything_is_made(base):
    """Nothing of the tree is there, not even what would be right."""
    root, before, after, streams = base
    streams[1] = control([(0, 10**4, 0)] * 8)
    job = _job(root, before, after, streams)
    with pytest.raises(RejectedError, match="two programs"):
        perform(job)

    assert not list(job.destination.iterdir())


def _plain(root, made, streams, **changes):
    """Return the job of a delta to one file, `z`, from one that is not read."""
    before = grow(root / "old", {"p": b"old"})
    after = grow(root / "new", {"z": made})
    items = [Item("z", MADE, 0o644, len(made))]
    plan = script.encode(before, items, [], [], set())
    return _job(root, before, after, [plan, *streams], **changes)


@pytest.mark.parametrize("codec", ["delta1+xz", CODEC])
def test_operations_that_copy_nothing_need_no_old_files(tmp_path, codec):
    """Where nothing is read there need be nothing to read from."""
    new = b"all of it is new"
    streams = [b"".join(encode([(0, 8, 0)] * 2)), b"", b"", new]
    streams += [b"\0"] * (codec == CODEC)
    job = _plain(tmp_path, new, streams, codec=codec)
    perform(job)

    assert new == (job.destination / "z").read_bytes()


def test_a_copy_of_nothing_may_lie_in_a_file_that_is_not_made_yet(tmp_path):
    """The bytes before it are read all the same."""
    old, zeros = random.Random(1).randbytes(5000), bytes(1 << 20)
    before = grow(tmp_path / "old", {"p": old})
    after = grow(tmp_path / "new", {"big": old[4900:] + zeros, "z": old[:10]})
    items = [Item("big", MADE, 0o644, len(zeros) + 100), Item("z", MADE, 0o644, 10)]
    plan = script.encode(before, items, [0], [0], set())
    reads = [(4900, 99, 0), (5001, 0, 1), (4999, 0, len(zeros)), (0, 10, 0)]
    streams = [plan, control(reads), b"", b"", old[4999:] + zeros]
    job = _job(tmp_path, before, after, streams, codec="delta1+xz")

    assert not perform(job).missing


@pytest.mark.parametrize("codec", ["delta1+xz", CODEC])
def test_operations_that_make_more_than_a_number_holds_are_refused(tmp_path, codec):
    """Each of them is possible, and each block of them."""
    many = [(0, 2**48 - 1, 0)] * (10 * MAX_BLOCK)
    streams = [b"".join(encode(many)), b"", b"", b""] + [b"\0"] * (codec == CODEC)
    with pytest.raises(MalformedError):
        perform(_plain(tmp_path, b"1", streams, codec=codec))


@pytest.mark.parametrize("codec", ["delta1+xz", CODEC])
def test_files_longer_than_any_disk_are_refused(tmp_path, codec):
    """Signed, made and read again: together they have more bytes than 64 bits count."""
    before = grow(tmp_path / "old", {"p": b"old"})
    after = tuple(File(f"{n:04}", 64 * "0", 2**53 - 1, 0o644) for n in range(1100))
    items = [Item(file.path, MADE, 0o644, file.length) for file in after]
    plan = script.encode(before, items, [0], range(1100), set())
    streams = [plan, control([(0, 1, 0)]), b"", b"", b""] + [b"\0"] * (codec == CODEC)
    with pytest.raises(MalformedError, match="longer than any disk"):
        perform(_job(tmp_path, before, after, streams, codec=codec))


def test_blocks_of_one_operation_each_do_not_fill_the_worker(tmp_path, loops):
    """All of a delta with images are kept until its programs are made."""
    count = projection.MAX_OPERATIONS
    one = b"".join(encode([(0, 1, 0)]))
    job = _plain(tmp_path, bytes(count), [one * count, b"", b"", bytes(count), b"\0"])
    end = ask(loops, job).end

    assert "malformed" == end.code
    assert end.used.peak_rss < 48 * 2**20
