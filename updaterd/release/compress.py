"""Pack a stream the smallest way its readers allow."""

import bz2
import lzma

from updaterd.artifact.codecs import BZ2, STORED, WINDOW, WINDOW_LOG, XZ, ZSTD, zstd
from updaterd.errors import BrokenError

DECODE_COST = {STORED: 0.0, ZSTD: 1.0, XZ: 8.0, BZ2: 17.0}
"""CPU time to decode a byte, relative to zstd (docs/performance.md)."""

Packed = tuple[int, bytes]


_LARGE = 1 << 20
"""Bytes from which on only xz is tried: it won on every larger stream measured."""


def xz(data: bytes, level: int = 9 | lzma.PRESET_EXTREME) -> bytes:
    """Return raw LZMA2, as codec 2 of a bundle."""
    filters = [
        {
            "id": lzma.FILTER_LZMA2,
            "preset": level,
            "dict_size": max(4096, min(WINDOW, len(data))),
            "pb": 0,  # nothing in our streams is aligned to more than a byte
        }
    ]
    return lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)


def zstandard(data: bytes, level: int = 19) -> bytes:
    """Return a zstd frame without checksum, as codec 1 of a bundle.

    Raises:
        BrokenError: this Python has no zstd.
    """
    module = zstd()
    if module is None:
        raise BrokenError("this Python has no zstd", do="pip install backports.zstd")
    names = module.CompressionParameter
    log = min(WINDOW_LOG, max(10, (len(data) - 1).bit_length()))
    options = {
        names.compression_level: level,
        names.window_log: log,
        names.enable_long_distance_matching: 1 if len(data) > 1 << 20 else 0,
        names.checksum_flag: 0,
    }
    packed: bytes = module.compress(data, options=options)
    return packed


def smallest(data: bytes) -> Packed:
    """Return the codec number and bytes of the smallest of the codecs.

    Ties within half a percent go to the one that decodes faster.
    """
    candidates = [(STORED, data), (XZ, xz(data))]
    if len(data) < _LARGE:
        candidates += [(ZSTD, zstandard(data)), (BZ2, bz2.compress(data))]
    least = min(len(packed) for _, packed in candidates)
    near = [c for c in candidates if len(c[1]) <= least * 1.005]
    return min(near, key=lambda c: (DECODE_COST[c[0]], len(c[1])))


def guess(data: bytes) -> int:
    """Return about how small a stream gets, fast."""
    return len(xz(data, 6))
