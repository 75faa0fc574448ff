# SPDX-License-Identifier: Apache-2.0
"""How the streams of a delta are packed: bytes against the time to decode them."""

import random
from itertools import product

import pytest

from updaterd.artifact.codecs import STORED, XZ, ZSTD, Packed, Stream
from updaterd.release.bundles import streams
from updaterd.release.bundles.packing import compress, exchange
from updaterd.release.bundles.packing.exchange import RATES
from updaterd.release.bundles.tasks import Pack


@pytest.mark.slow
@pytest.mark.parametrize("codec", [XZ, ZSTD])
@pytest.mark.parametrize("planar", [False, True])
def test_a_packed_stream_is_what_readers_decode(tmp_path, codec, planar):
    """In several files and pieces, planar or not."""
    draw = random.Random(1)
    data = bytes(draw.choices(b"abcd", k=1_500_000))
    (tmp_path / "one").write_bytes(data[:7])
    (tmp_path / "two").write_bytes(data[7:])
    pack = Pack(
        parts=[str(tmp_path / name) for name in ("one", "two")],
        planar=planar,
        out=str(tmp_path / "out"),
        codec=codec,
    )
    used, raw, packed = pack.perform()

    assert (used, raw) == (codec, len(data))
    [path] = pack.files(codec)
    with open(path, "rb") as file:
        stream = Stream(file.fileno(), Packed(codec, packed, raw, 0), "it")
        assert stream.read(raw) == data
        stream.finish()


@pytest.mark.parametrize("codec", [XZ, ZSTD])
@pytest.mark.parametrize("data", [b"", b"a", random.Random(2).randbytes(9000)])
def test_what_does_not_shrink_is_stored(tmp_path, codec, data):
    """Nothing has to be decoded then."""
    (tmp_path / "in").write_bytes(data)
    parts = [str(tmp_path / "in")]
    pack = Pack(parts=parts, planar=False, out=str(tmp_path / "out"), codec=codec)

    assert pack.perform() == [STORED, len(data), len(data)]
    assert pack.files(STORED) == parts


KIB = 1024
XZ_ROWS = [(XZ, 900 * KIB, 300 * KIB), (XZ, 40 * KIB, 2 * KIB)]
ZSTD_ROWS = [(ZSTD, 900 * KIB, 312 * KIB), (ZSTD, 40 * KIB, 2 * KIB + 40)]


def test_bytes_are_weighed_against_milliseconds_by_the_stated_rate():
    """12 KiB less for 17 ms more: worth it at 500 bytes each, not at 8000."""
    assert [0, 0] == exchange.choose([XZ_ROWS, ZSTD_ROWS], RATES["bytes"])
    assert [0, 0] == exchange.choose([XZ_ROWS, ZSTD_ROWS], RATES["balanced"])
    assert [1, 1] == exchange.choose([XZ_ROWS, ZSTD_ROWS], RATES["cpu"])


def test_a_second_decoder_is_loaded_only_where_it_pays():
    """40 bytes less are not worth the millisecond that it takes to load."""
    assert [1, 1] == exchange.choose([XZ_ROWS, ZSTD_ROWS], 1000)
    wide = [ZSTD_ROWS[0], (ZSTD, 40 * KIB, 9 * KIB)]
    assert [1, 0] == exchange.choose([XZ_ROWS, wide], 1000)


@pytest.mark.parametrize("rate", RATES.values())
def test_no_other_way_costs_a_machine_less(rate):
    """Against all of them, one by one."""
    draw = random.Random(rate)
    load = {XZ: 1.0, ZSTD: 4.0}

    def cost(tables, picks):
        rows = [tables[way][stream] for stream, way in enumerate(picks)]
        loads = sum(load[codec] for codec in {row[0] for row in rows})
        return sum(exchange.weight(row, rate) for row in rows) + rate * loads

    for _ in range(50):
        raw = [draw.randrange(1 << draw.randrange(8, 22)) for _ in range(4)]
        tables = [
            [(codec, size, draw.randrange(size // 3 + 1)) for size in raw]
            for codec in (XZ, ZSTD)
        ]
        best = min(cost(tables, picks) for picks in product((0, 1), repeat=4))
        assert best == pytest.approx(cost(tables, exchange.choose(tables, rate)))


@pytest.mark.parametrize("imaged", [False, True])
def test_no_stream_is_packed_twice_by_the_same_codec(tmp_path, imaged):
    """Packing is most of a push; long ones of programs are packed by zstd alone."""
    packs = []
    for name, size in (("short", 1 << 10), ("long", 5 << 20)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        parts = [str(tmp_path / name)]
        packs.append(Pack(parts=parts, planar=False, out=str(tmp_path / f"{name}.p")))
    done = []

    def perform(several, _):
        done.extend((pack.parts[0], pack.codec) for pack in several)
        return [[pack.codec, pack.size, pack.size // 9] for pack in several]

    picked, table = streams.cheapest(packs, perform, imaged=imaged, rate=500)

    assert len(done) == len(set(done)) == (3 if imaged else 4)
    assert [pack.parts for pack in picked] == [pack.parts for pack in packs]
    assert [pack.codec for pack in picked] == [row[0] for row in table]


def test_a_frame_is_packed_for_what_it_is_made_for():
    draw = random.Random(5)
    words = [draw.randbytes(draw.randrange(2, 7)) for _ in range(2000)]
    frame = b"".join(draw.choices(words, k=70_000))
    small, quick = (
        compress.cheapest(frame, rate=RATES[name])[0] for name in ("bytes", "cpu")
    )
    assert (XZ, ZSTD) == (small, quick)
