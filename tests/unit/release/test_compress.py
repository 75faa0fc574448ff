"""How the streams of a delta are packed: bytes against the time to decode them."""

import random

from hypothesis import given
from hypothesis import strategies as st

from updaterd.artifact.codecs import STORED, XZ, ZSTD, Packed, Stream
from updaterd.release import compress

SIZES = st.integers(0, 10**7)


def test_a_large_delta_takes_what_decodes_faster():
    """zstd, when it is a tenth larger; xz, when it is a half."""
    assert compress.choose([(10**7, 10**6, 1_100_000)]) == [ZSTD]
    assert compress.choose([(10**7, 10**6, 1_500_000)]) == [XZ]


def test_a_small_delta_is_not_worth_loading_zstd():
    """Although each of its streams decodes faster."""
    assert compress.choose([(9000, 3000, 3100)] * 5) == [XZ] * 5
    assert compress.choose([(900_000, 300_000, 310_000), (9000, 3000, 3100)]) == [
        ZSTD,
        ZSTD,
    ]


def test_what_does_not_shrink_is_stored():
    """Nothing has to be decoded then."""
    assert compress.choose([(0, 1, 9), (50, 51, 60), (900, 200, 210)]) == [
        STORED,
        STORED,
        XZ,
    ]


@given(st.lists(st.tuples(SIZES, SIZES, SIZES), min_size=1, max_size=6))
def test_no_choice_costs_more_than_xz_alone_would(streams):
    """By the weights that are written down, in bytes."""

    def weight(choice):
        total = sum(compress.LOAD[codec] for codec in set(choice) - {STORED})
        for codec, (raw, *packed) in zip(choice, streams, strict=True):
            if codec == STORED:
                total += raw
            else:
                form = packed[compress.PACKERS.index(codec)]
                total += form * (1 + compress.DECODE[codec])
        return total

    chosen = weight(compress.choose(streams))
    for alone in (XZ, ZSTD):
        assert chosen <= weight([alone] * len(streams)) + 1e-6


def test_both_forms_of_a_stream_are_what_readers_decode(tmp_path):
    """In several files and pieces, planar or not; also when there is nothing."""
    draw = random.Random(1)
    data = bytes(draw.choice(b"abcd") for _ in range(1_500_000))
    (tmp_path / "one").write_bytes(data[:7])
    (tmp_path / "two").write_bytes(data[7:])
    (tmp_path / "none").write_bytes(b"")
    for names, raw, planar in (
        (("one", "two"), data, True),
        (("one", "two"), data, False),
        (("none",), b"", False),
    ):
        paths = [str(tmp_path / name) for name in names]
        out = tmp_path / "out"
        length, *packed = compress.both(paths, len(raw), str(out), planar=planar)
        assert length == len(raw)
        for codec, size in zip(compress.PACKERS, packed, strict=True):
            with (tmp_path / f"out.{codec}").open("rb") as file:
                stream = Stream(file.fileno(), Packed(codec, size, len(raw), 0), "it")
                assert stream.read(len(raw)) == raw
                stream.finish()
