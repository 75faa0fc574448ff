# SPDX-License-Identifier: Apache-2.0
"""Bundles that are validly hashed and mean harm.

Whatever is in them: refused with a typed error or exactly the signed tree; nothing
outside the destination; memory bounded.
"""

import bz2
import random
import struct
from functools import cache

import pytest
from fakes.bundles import assemble, delta_job, grow, make_delta, pack, perform
from fakes.uncompiled import BOTH, ask, use

from updaterd.artifact import codecs, container, script
from updaterd.artifact.apply import operations
from updaterd.artifact.codecs import BZ2, STORED, XZ, ZSTD, zstd
from updaterd.artifact.script import COPY, LINK, MADE, SAME, Item
from updaterd.artifact.varint import pack as number
from updaterd.artifact.verify import verify_tree
from updaterd.artifact.worker import parent
from updaterd.artifact.worker.answers import Done
from updaterd.core.bundle_kinds import BSDIFF
from updaterd.errors import RejectedError
from updaterd.release.bundles import full as release_bundle

HUGE = 1 << 45
NOTHING = (STORED, 0, b"")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small pair of trees with its delta, and something worth protecting."""
    tmp_path = tmp_path_factory.mktemp("hostile")
    (tmp_path / "precious").write_bytes(b"precious")
    draw = random.Random(2)
    one, two = draw.randbytes(3000), draw.randbytes(3000)
    grow(tmp_path / "old", {"a": one, "b": two, "s": b"same", "d/e": b"old"})
    grow(
        tmp_path / "new", {"a": one[:1500] + b"!" + one[1500:], "s": b"same", "n": two}
    )
    make_delta(tmp_path)
    return tmp_path


@pytest.fixture(params=BOTH, autouse=True)
def loops(request, monkeypatch):
    """Which loops apply deltas: what is refused must not depend on a compiler."""
    use(request.param, monkeypatch)
    return request.param


@cache
def _trees(base):
    return grow(base / "old", {}), grow(base / "new", {})


def _outside(base):
    """Return everything but the destinations."""
    tops = [p for p in base.iterdir() if not p.name.startswith(("out", "hostile"))]
    return {
        path: (path.lstat().st_mode, path.is_file() and path.read_bytes())
        for top in tops
        for path in (top, *top.rglob("*"))
    }


def _attack(base, data: bytes, **changes):
    """Apply hostile bytes in this process; return the error, None if it made it."""
    before, after = _trees(base)
    path = base / "hostile"
    path.write_bytes(data)
    outside = _outside(base)
    job = delta_job(base, path, before, after, **changes)
    try:
        perform(job)
    except RejectedError as error:
        return error
    finally:
        assert outside == _outside(base)
    if job.files is not None and job.kind == "delta":
        assert not verify_tree(job.destination, after)
    return None


def _streams(base):
    """Return the raw streams of the honest delta."""
    path = base / "delta"
    with path.open("rb") as file:
        table = container.read(
            file.fileno(), container.DELTA, length=path.stat().st_size
        )
        return [
            codecs.read_whole(file.fileno(), packed, "stream", limit=1 << 20)
            for packed in table
        ]


@cache
def _bomb(codec: int, size: int) -> bytes:
    if codec == BZ2:
        return bz2.compress(bytes(size))
    if codec == ZSTD:
        return zstd().compress(bytes(size))
    return pack(bytes(size))[2]


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("codec", [ZSTD, XZ, BZ2])
@pytest.mark.parametrize("declared", [0, 100, 1 << 24, HUGE])
def test_a_bomb_makes_no_more_than_was_signed(base, place, codec, declared):
    """Small packed, huge unpacked, in every stream, truthful about it or not."""
    streams = [pack(raw) for raw in _streams(base)]
    streams[place] = (codec, declared, _bomb(codec, 1 << 24))
    assert _attack(base, assemble(container.DELTA, *streams)) is not None


SCRIPTS = {
    "up": Item("../precious", MADE, 0o644, 3),
    "absolute": Item("/etc/x", MADE, 0o644, 3),
    "up inside": Item("d/../../x", MADE, 0o644, 3),
    "control character": Item("a\nb", MADE, 0o644, 3),
    "setuid": Item("n", MADE, 0o4755, 3),
    "world-writable": Item("n", MADE, 0o777, 3),
    "huge": Item("n", MADE, 0o644, HUGE),
    "link out": Item("n", LINK, target="../precious"),
    "link absolute": Item("n", LINK, target="/etc/passwd"),
    "below a file": Item("s/x", MADE, 0o644, 3),
    "copy of nothing": Item("n", COPY, 0o644, 99),
    "same as nothing": Item("n", SAME, 0o644, 99),
    "unknown": Item("n", 7, 0o644, 3),
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("signed", [True, False])
def test_a_hostile_script_writes_nothing(base, name, signed):
    """Refused before a byte is written; also where only the tree id is known."""
    before, after = _trees(base)
    kept = {entry.path for entry in before}
    raw = script.encode(before, [SCRIPTS[name]], [0], [], kept)
    ops = b"".join(operations.encode([(0, 3, 0)]))
    data = assemble(
        container.DELTA, *map(pack, (raw, ops)), NOTHING, NOTHING, pack(b"abc")
    )
    error = _attack(base, data, files=after if signed else None)

    assert error is not None
    if "huge" != name:
        newest = max(base.glob("out*"), key=lambda path: int(path.name[3:]))
        assert not list(newest.iterdir())


def test_a_link_cannot_become_a_directory(base):
    """A link and a file below it: refused, though each alone is fine."""
    before, _ = _trees(base)
    items = [Item("k", LINK, target="."), Item("k/precious", MADE, 0o644, 3)]
    raw = script.encode(before, items, [], [], set())
    ops = b"".join(operations.encode([(0, 3, 0)]))
    data = assemble(
        container.DELTA, *map(pack, (raw, ops)), NOTHING, NOTHING, pack(b"abc")
    )
    assert _attack(base, data, files=None) is not None


OPERATIONS = {
    "before the start": [(0, 0, -1), (3, 0, 0)],
    "after the end": [(0, 0, 10**6), (3, 0, 0)],
    "across the end": [(10**6, 0, 0)],
    "too much": [(3000, 3000, 0)] * 50,
    "far too much": [(0, HUGE, 0)] * 50,
    "too little": [(1, 0, 0)],
    "none": [],
    "jumps": [(1, 0, 2000), (1, 0, -2001)] * 4000,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_hostile_operations_are_refused(base, name):
    """Each is checked against the old data and the signed sizes before it runs."""
    raw = _streams(base)
    raw[1] = b"".join(operations.encode(OPERATIONS[name]))
    assert _attack(base, assemble(container.DELTA, *map(pack, raw))) is not None


def test_a_file_that_is_not_made_yet_cannot_be_read(base):
    """Nor the file that is being made: there is nothing in it to trust."""
    before, after = _trees(base)
    items = [Item("a", MADE, 0o644, 3001)]
    kept = {"s"}
    raw = script.encode(before, [*items, Item("n", COPY, 0o644, 1)], [], [0], kept)
    ops = b"".join(operations.encode([(3001, 0, 0)]))
    data = assemble(container.DELTA, *map(pack, (raw, ops)), NOTHING, NOTHING, NOTHING)
    error = _attack(base, data, files=after)
    assert "not made yet" in str(error)


def _bsdiff(control: bytes, diff: bytes, extra: bytes, size: int) -> bytes:
    packed = [bz2.compress(part) for part in (control, diff, extra)]
    head = struct.pack("<8sqqq", b"BSDIFF40", len(packed[0]), len(packed[1]), size)
    return head + b"".join(packed)


BSDIFFS = {
    "negative length": [(-5, 0, 0)],
    "negative extra": [(0, -5, 0)],
    "negative sum": [(2**62, 0, 0), (2**62, 0, 0)],
    "least": [(-(2**63), -(2**63), 0)],
    "outside": [(0, 0, 2**40), (10, 0, 0)],
    "too much": [(10, 2**40, 0)],
    "nothing": [],
}


@pytest.mark.parametrize("name", BSDIFFS)
@pytest.mark.parametrize("size", [-1, 0, None, 2**62])
def test_hostile_bsdiff_patches_are_refused(base, name, size):
    """What took the C core to 0.8 GB, or past its buffers, never reaches it."""
    _, after = _trees(base)
    size = sum(e.length for e in after) if size is None else size
    control = b"".join(struct.pack("<qqq", *triple) for triple in BSDIFFS[name])
    data = _bsdiff(control, b"", b"", size)
    assert _attack(base, data, codec=BSDIFF) is not None
    bomb = _bsdiff(bytes(24 * 4_000_000), bytes(1 << 24), b"", size)
    assert _attack(base, bomb, codec=BSDIFF) is not None


def _mutate(draw: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(out) + 1)
        match draw.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << draw.randrange(8)
            case 1:
                out[at:at] = draw.randbytes(draw.randrange(1, 9))
            case 2:
                del out[at : at + draw.randrange(1, 9)]
            case 3 if at < len(out):
                out[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
            case _:
                other = draw.randrange(len(out) + 1)
                out[at:at] = out[other : other + draw.randrange(1, 40)]
    return bytes(out)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_streams_are_refused_or_harmless(base, seed):
    """Raw streams changed, then packed honestly: the parsers meet all of it."""
    draw = random.Random(seed)
    raw = _streams(base)
    for _ in range(100):
        changed = list(raw)
        place = draw.randrange(5)
        changed[place] = _mutate(draw, raw[place] or b"\0")
        files = {} if draw.randrange(2) else {"files": None}
        _attack(base, assemble(container.DELTA, *map(pack, changed)), **files)


@pytest.mark.parametrize("kind", ["delta", "full", "bsdiff"])
def test_mutated_bundles_are_refused_or_harmless(base, kind):
    """Bytes of the whole file changed: header, table and packed data."""
    before, after = _trees(base)
    draw = random.Random(kind)
    changes: dict[str, object] = {}
    data = (base / "delta").read_bytes()
    if kind == "full":
        release_bundle.build_full(base / "new", after, base / "full")
        data = (base / "full").read_bytes()
        changes = {"kind": "full", "codec": "full1+xz"}
    if kind == "bsdiff":
        bsdiff4 = pytest.importorskip("bsdiff4")
        old, new = (
            b"".join((base / name / e.path).read_bytes() for e in files)
            for name, files in (("old", before), ("new", after))
        )
        data = bsdiff4.diff(old, new)
        changes = {"codec": BSDIFF}
        assert _attack(base, data, **changes) is None
    for _ in range(100):
        _attack(base, _mutate(draw, data), **changes)


def test_the_worker_stays_small(base, loops):
    """The greediest bundles, in the process that opens them: 96 MB at most."""
    before, after = _trees(base)
    raw = _streams(base)
    bombs = [assemble(container.DELTA, (c, HUGE, _bomb(c, 1 << 25))) for c in (1, 2, 3)]
    for place in range(5):
        streams = [pack(part) for part in raw]
        streams[place] = (XZ, 60 << 20, _bomb(XZ, 60 << 20))
        bombs.append(assemble(container.DELTA, *streams))
    rows = number(*[1] * 60_000)
    bombs.append(b"UPDR\x01D" + number(60_000) + rows)
    peaks = []
    for data in bombs:
        path = base / "hostile"
        path.write_bytes(data)
        end = ask(loops, delta_job(base, path, before, after)).end
        assert end.code in {"malformed", "bad_bundle", "wrong_tree", "memory_limit"}
        peaks.append(end.used.peak_rss)
    print(f"{len(peaks)} greedy deltas: the worker's peak is {_mib(peaks)}")
    assert max(peaks) < 96 * 2**20


def test_reading_all_over_a_long_file_takes_no_memory(tmp_path, loops):
    """Each operation reads from another 64 KiB, which the kernel maps as a whole."""
    window, count = 1 << 16, 4096
    before = grow(tmp_path / "old", {"x": random.Random(1).randbytes(1 << 20) * 64})
    made = before[0].length // window  # windows of the file, read again and again
    steps = [
        (60, 0, window - 60 - (before[0].length if number % made == made - 1 else 0))
        for number in range(count)
    ]
    steps[-1] = (60, 0, 0)
    old = (tmp_path / "old" / "x").read_bytes()
    starts = [window * (number % made) for number in range(count)]
    new = b"".join(old[start : start + 60] for start in starts)
    after = grow(tmp_path / "new", {"x": new})
    item = script.Item("x", script.MADE, 0o644, len(new))
    streams = [script.encode(before, [item], [0], [], set())]
    streams += [b"".join(operations.encode(steps)), b"", b"", b""]
    path = tmp_path / "hostile"
    path.write_bytes(assemble(container.DELTA, *map(pack, streams)))

    end = ask(loops, delta_job(tmp_path, path, before, after)).end

    assert isinstance(end, Done)
    print(f"{count} far reads: the worker's peak is {_mib([end.used.peak_rss])}")
    assert end.used.peak_rss < 64 * 2**20


def _mib(peaks: list[int]) -> str:
    return f"{max(peaks) / 2**20:.0f} MiB"


def test_the_worker_has_no_rights_to_speak_of(base, monkeypatch):
    """Limits hold in the worker, and its environment is ours, not the caller's."""
    monkeypatch.setenv("PYTHONPATH", str(base / "evil"))
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent.so")
    (base / "evil").mkdir(exist_ok=True)
    (base / "evil" / "json.py").write_text("raise SystemExit(9)")
    before, after = _trees(base)
    job = delta_job(base, base / "delta", before, after)
    report = parent.run(job)
    assert not verify_tree(job.destination, after)
    assert report.peak_rss < 48 * 2**20
