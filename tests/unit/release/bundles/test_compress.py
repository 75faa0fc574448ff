# SPDX-License-Identifier: Apache-2.0
"""How the streams of a delta are packed: bytes against the time to decode them."""

import random

import pytest

from updaterd.artifact.codecs import STORED, XZ, ZSTD, Packed, Stream
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
