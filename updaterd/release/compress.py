"""Pack a stream the smallest way its readers allow."""

import bz2
import lzma
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from updaterd.artifact.codecs import BZ2, STORED, WINDOW, WINDOW_LOG, XZ, ZSTD, zstd
from updaterd.errors import BrokenError

BIG_ENDIAN = sys.byteorder == "big"

DECODE_COST = {STORED: 0.0, ZSTD: 1.0, XZ: 8.0, BZ2: 17.0}
"""CPU time to decode a byte, relative to zstd (docs/performance.md)."""

Packed = tuple[int, bytes]

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
    module = zstd()
    if module is None:
        raise BrokenError("this Python has no zstd", do="pip install backports.zstd")
    names = module.CompressionParameter
    options = {
        names.compression_level: 19,
        names.window_log: min(WINDOW_LOG, max(10, (len(data) - 1).bit_length())),
        names.checksum_flag: 0,
    }
    packed: bytes = module.compress(data, options=options)
    return packed


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


def stream(
    source: Iterable[bytes],
    length: int,
    out: BinaryIO,
    *,
    planar: bool = False,
) -> tuple[int, int]:
    """Pack a stream that need not fit in memory; return codec and packed bytes.

    A long one is packed by xz as it comes, whatever its length in 12 bytes of memory
    a byte, at most 96 MiB.

    Args:
        source: its bytes, in pieces.
        length: of all of them.
        out: where to write.
        planar: see `xz`.

    Raises:
        OSError: the disk refused.
    """
    if length < _PIECE:
        codec, whole = smallest(b"".join(source), planar=planar)
        return codec, out.write(whole)
    done = 0
    for packed in _xz(source, _filters(length, _BEST, planar=planar)):
        done += out.write(packed)
    return XZ, done


def memory(length: int) -> int:
    """Return about how many bytes of memory it takes to pack a stream."""
    return 12 * min(WINDOW, length) + (8 << 20)
