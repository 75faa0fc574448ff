"""Pack a stream the smallest way its readers allow."""

import bz2
import lzma
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from updaterd.artifact.codecs import BZ2, STORED, WINDOW, WINDOW_LOG, XZ, ZSTD, zstd
from updaterd.errors import BrokenError
from updaterd.release.reading import pieces

BIG_ENDIAN = sys.byteorder == "big"

DECODE_COST = {STORED: 0.0, ZSTD: 1.0, XZ: 8.0, BZ2: 17.0}
"""CPU time to decode a byte, relative to zstd (docs/performance.md)."""

Packed = tuple[int, bytes]

PACKERS = XZ, ZSTD
"""What the streams of deltas are packed with."""
DECODE = {XZ: 0.24, ZSTD: 0.03}
"""Weight of decoding a packed byte, as bytes: 60 and 8 ns at 4 bytes a microsecond."""
LOAD = {XZ: 0, ZSTD: 16_000}
"""Weight of loading the decoder, as bytes: the 4 ms that it takes longer than xz."""

_BEST = 9 | lzma.PRESET_EXTREME

_LARGE = 1 << 18
"""Bytes from which on only xz is tried: it won on every larger stream measured."""
_PIECE = 1 << 20


def _filters(length: int, preset: int, *, planar: bool) -> list[dict[str, Any]]:
    chosen: dict[str, Any] = {
        "id": lzma.FILTER_LZMA2,
        "preset": preset,
        "dict_size": max(4096, min(WINDOW, length)),
        "pb": 0,  # nothing in our streams is aligned to more than a byte
    }
    if planar:
        chosen["lc"] = 0  # in planes of numbers, the byte before says nothing
    return [chosen]


def _xz(
    source: Iterable[bytes | memoryview], filters: list[dict[str, Any]]
) -> Iterator[bytes]:
    encoder = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    for piece in source:
        yield encoder.compress(piece)
    yield encoder.flush()


def xz(
    data: bytes,
    *,
    planar: bool = False,
    preset: int = _BEST,
    more: Callable[[int], None] | None = None,
) -> bytes:
    """Return raw LZMA2, as codec 2 of a bundle.

    Args:
        data: what to pack.
        planar: it consists of byte planes.
        preset: of the encoder.
        more: told how many more bytes are packed, now and then.
    """

    def pieces() -> Iterator[memoryview]:
        view = memoryview(data)
        for at in range(0, len(data), _PIECE):
            piece = view[at : at + _PIECE]
            yield piece
            if more is not None:
                more(len(piece))

    return b"".join(_xz(pieces(), _filters(len(data), preset, planar=planar)))


def guess(data: bytes, *, planar: bool = False) -> int:
    """Return about how small xz makes a piece, in a tenth of the time.

    Good for a comparison of two forms of the same data, and for nothing else.
    """
    return len(xz(data, planar=planar, preset=0))


def zstandard(data: bytes) -> bytes:
    """Return a zstd frame without checksum, as codec 1 of a bundle.

    Raises:
        BrokenError: this Python has no zstd.
    """
    module = _module()
    packed: bytes = module.compress(data, options=_options(module, len(data)))
    return packed


def _module() -> ModuleType:
    """Return the zstd module.

    Raises:
        BrokenError: this Python has none.
    """
    module = zstd()
    if module is None:
        raise BrokenError("this Python has no zstd", do="pip install backports.zstd")
    return module


def _options(module: ModuleType, length: int) -> dict[Any, int]:
    names = module.CompressionParameter
    return {
        names.compression_level: 19,
        names.window_log: min(WINDOW_LOG, max(10, (length - 1).bit_length())),
        names.checksum_flag: 0,
    }


def _zstd(paths: Sequence[str], length: int) -> Iterator[bytes]:
    """Yield a stream as a zstd frame; it may be larger than memory.

    Raises:
        BrokenError: this Python has no zstd.
        OSError: the disk refused.
    """
    module = _module()
    encoder = module.ZstdCompressor(options=_options(module, length))
    encoder.set_pledged_input_size(length)
    for piece in pieces(paths):
        yield encoder.compress(piece)
    yield encoder.flush()


def smallest(
    data: bytes, *, planar: bool = False, more: Callable[[int], None] | None = None
) -> Packed:
    """Return the codec number and bytes of the smallest of the codecs.

    Ties within half a percent go to the one that decodes faster.

    Args:
        data: what to pack.
        planar: see `xz`.
        more: see `xz`.
    """
    candidates = [(STORED, data), (XZ, xz(data, planar=planar, more=more))]
    if len(data) < _LARGE:
        candidates += [(ZSTD, zstandard(data)), (BZ2, bz2.compress(data))]
    least = min(len(packed) for _, packed in candidates)
    near = [c for c in candidates if len(c[1]) <= least * 1.005]
    return min(near, key=lambda c: (DECODE_COST[c[0]], len(c[1])))


def both(paths: Sequence[str], length: int, out: str, *, planar: bool) -> list[int]:
    """Pack a stream that need not fit in memory by xz and by zstd; `choose` then.

    Args:
        paths: files that hold it, in this order.
        length: of all of it.
        out: what the packed files are called, but for the codec's number.
        planar: see `xz`.

    Returns:
        The raw length, then the packed ones in the order of PACKERS.

    Raises:
        BrokenError: this Python has no zstd.
        OSError: the disk refused.

    Power cut: the files may be incomplete.
    """
    filters = _filters(length, _BEST, planar=planar)
    done = [length]
    for codec in PACKERS:
        made = _xz(pieces(paths), filters) if codec == XZ else _zstd(paths, length)
        with open(f"{out}.{codec}", "wb") as file:
            done.append(sum(map(file.write, made)))
    return done


def choose(streams: Sequence[Sequence[int]]) -> list[int]:
    """Return the codec of each stream of a delta: bytes against CPU time.

    A machine waits for both, so a stream weighs its bytes and what a line of 32 Mbit/s
    brings in the time it takes to decode them. Loading zstd takes longer than loading
    xz; a small delta is not worth it. Between releases of programs zstd is up to a
    tenth larger than xz, and decodes ten times faster: most deltas of more than 100 KB
    take it (docs/decisions/0014-references-are-projected.md).

    Args:
        streams: of each what `both` returned.
    """
    ways = [
        (sum(weight for weight, _ in way) + sum(LOAD[codec] for codec in codecs), way)
        for codecs in ((XZ,), (ZSTD,), PACKERS)
        for way in [[_lightest(lengths, codecs) for lengths in streams]]
    ]
    return [codec for _, codec in min(ways)[1]]


def _lightest(lengths: Sequence[int], codecs: Sequence[int]) -> tuple[float, int]:
    """Return the weight of a stream's lightest form, and its codec."""
    raw, *packed = lengths
    forms = [(float(raw), STORED)]
    for codec, length in zip(PACKERS, packed, strict=True):
        if codec in codecs:
            forms.append((length * (1 + DECODE[codec]), codec))
    return min(forms)


def memory(length: int) -> int:
    """Return about how many bytes of memory it takes to pack a stream."""
    return 12 * min(WINDOW, length) + (8 << 20)
