# SPDX-License-Identifier: Apache-2.0
"""Pack a stream the cheapest way its readers allow."""

import bz2
import lzma
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from updaterd.artifact.codecs import BZ2, STORED, WINDOW, XZ, ZSTD, zstd
from updaterd.errors import BrokenError
from updaterd.release.bundles.packing import exchange
from updaterd.release.bundles.packing.reading import pieces

BIG_ENDIAN = sys.byteorder == "big"

Packed = tuple[int, bytes]

_BEST = 9 | lzma.PRESET_EXTREME

_LARGE = 1 << 18
"""Bytes from which on zstd and bz2 are tried only where CPU counts for more than bytes:
xz was smaller on every larger stream measured."""
_WINDOW_LOG = 22
"""Of zstd: half of what readers allow. They hold a window for each stream, and what
they know of a program besides."""
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


def primed(data: bytes, prefix: bytes) -> bytes:
    """Return a zstd frame that may refer to what comes before it.

    Raises:
        BrokenError: this Python has no zstd.
    """
    module = _module()
    options = _options(module, len(prefix) + len(data))
    names = module.CompressionParameter
    options[names.window_log] = (len(prefix) + len(data)).bit_length()
    before = module.ZstdDict(prefix, is_raw=True).as_prefix
    packed: bytes = module.compress(data, options=options, zstd_dict=before)
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
        names.window_log: min(_WINDOW_LOG, max(10, (length - 1).bit_length())),
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


def cheapest(
    data: bytes,
    *,
    rate: int = exchange.BALANCED,
    planar: bool = False,
    more: Callable[[int], None] | None = None,
) -> Packed:
    """Return the codec number and bytes of what costs a machine least.

    Args:
        data: what to pack.
        rate: bytes that a millisecond of CPU is worth (`exchange`).
        planar: see `xz`.
        more: see `xz`.
    """
    candidates = [(STORED, data), (XZ, xz(data, planar=planar, more=more))]
    if len(data) < _LARGE:
        candidates += [(ZSTD, zstandard(data)), (BZ2, bz2.compress(data))]
    elif rate > exchange.BALANCED:
        candidates += [(ZSTD, zstandard(data))]
    return min(
        candidates, key=lambda c: exchange.weight((c[0], len(data), len(c[1])), rate)
    )


def pack(
    paths: Sequence[str], length: int, out: str, codec: int, *, planar: bool
) -> int:
    """Pack a stream that need not fit in memory; return the packed length.

    Args:
        paths: files that hold it, in this order.
        length: of all of it.
        out: the packed file.
        codec: XZ or ZSTD.
        planar: see `xz`.

    Raises:
        BrokenError: this Python has no zstd.
        OSError: the disk refused.

    Power cut: the file may be incomplete.
    """
    if codec == ZSTD:
        packed = _zstd(paths, length)
    else:
        packed = _xz(pieces(paths), _filters(length, _BEST, planar=planar))
    with open(out, "wb") as file:
        return sum(map(file.write, packed))


def memory(length: int) -> int:
    """Return about how many bytes of memory it takes to pack a stream."""
    return 12 * min(WINDOW, length) + (8 << 20)
