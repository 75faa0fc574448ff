# SPDX-License-Identifier: Apache-2.0
"""Compressed streams inside bundles, decoded a piece at a time.

A stream is declared with its packed and raw length, and must have exactly these:
a decoder never makes more than it was told, and trailing bytes are refused. The
window is at most 8 MiB whatever the codec, so a decoder's memory is bounded.
"""

from __future__ import annotations

import os
import sys

from updaterd.core.bundle_kinds import ARCHIVES, BSDIFF
from updaterd.core.frozen import record
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType
    from typing import Any, Protocol

    class _Decompressor(Protocol):
        needs_input: bool
        eof: bool
        unused_data: bytes

        def decompress(self, data: bytes, max_length: int) -> bytes: ...


STORED, ZSTD, XZ, BZ2 = range(4)
NAMES = {ZSTD: "zstd", XZ: "xz", BZ2: "bz2"}

WINDOW_LOG = 23
WINDOW = 1 << WINDOW_LOG
"""Largest window or dictionary, bytes: 8 MiB."""

MIN_PREFIX, MAX_PREFIX = 8, 4 << 20
"""Bytes of old files that may be the prefix of a frame: Python's zstd takes no fewer;
half of the window."""

_WINDOW_LOG_MAX = 100  # ZSTD_d_windowLogMax (zstd.h)
_PIECE = 1 << 16  # packed bytes read at a time
_AHEAD = 1 << 17  # raw bytes asked for at a time


def zstd() -> ModuleType | None:
    """Return the zstd module: the standard one from Python 3.14, or the backport."""
    return _first("compression.zstd", "backports.zstd")


def _first(*names: str) -> ModuleType | None:
    for name in names:
        try:
            __import__(name)
        except ImportError:
            continue
        return sys.modules[name]
    return None


def compressions() -> frozenset[str]:
    """Return which compressions this machine can decode."""
    names = {"bz2", "xz"}
    if zstd() is not None:
        names.add("zstd")
    return frozenset(names)


def available(offered: Iterable[str] = ()) -> frozenset[str]:
    """Return the codec names of the bundles this machine can apply.

    Args:
        offered: codec names; only when one is of inflated archives is it looked up
            whether this machine's zlib deflates them again, which takes 15 ms of CPU.
    """
    from updaterd.core.routes import codec_names  # noqa: PLC0415 - not in the worker

    names = codec_names(compressions())
    if any(name.startswith(ARCHIVES) for name in offered):
        from updaterd.artifact import classic  # noqa: PLC0415 - few need it

        if classic.is_here():
            return names
    return frozenset(name for name in names if not name.startswith(ARCHIVES))


@record
class Packed:
    """Where a stream lies: codec number, packed bytes, raw bytes, place in the file."""

    codec: int
    length: int
    raw: int
    offset: int


_prepared: set[int] | None = None  # codecs; None: whatever is there is imported


def _decompressor(
    codec: int, prefix: bytes = b""
) -> tuple[Any, tuple[type[Exception], ...]]:
    """Return a decoder and the errors it knows; imports what the stream needs only.

    Raises:
        MalformedError: this machine has no such decoder, or the bundle's codec does not
            name it.
    """
    if _prepared is not None and codec not in _prepared:
        raise MalformedError(
            f"a stream has codec {codec}, which the bundle does not name",
            code="unknown_codec",
        )
    if codec == XZ and (lzma := _first("lzma")) is not None:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": WINDOW}]
        decoder: Any = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
        return decoder, (lzma.LZMAError, EOFError, ValueError)
    if codec == BZ2 and (bz2 := _first("bz2")) is not None:
        return bz2.BZ2Decompressor(), (OSError, EOFError, ValueError)
    if codec == ZSTD:
        # Their compiled parts: what is around them imports `enum` and more, which takes
        # longer than decoding what a small delta has. The worker goes without.
        module = _first("_zstd", "backports.zstd._zstd")
        if module is not None:
            options = {_WINDOW_LOG_MAX: WINDOW_LOG}
            before = module.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
            decoder = module.ZstdDecompressor(before, options)
            return decoder, (module.ZstdError, EOFError, ValueError)
    raise MalformedError(
        f"a stream has codec {codec}, which this machine cannot decode",
        code="unknown_codec",
    )


def prepare(name: str) -> None:
    """Import what the streams of a bundle need, by its codec: later nothing can be.

    From here on this process decodes nothing else.

    Raises:
        ImportError: this Python lacks one of them.
    """
    global _prepared  # noqa: PLW0603 - for the one job of this process
    names = {"bz2"} if name == BSDIFF else set(name.split("+"))
    _prepared = None
    codecs = {codec for codec, compression in NAMES.items() if compression in names}
    for codec in codecs:
        try:
            _decompressor(codec)
        except MalformedError:
            raise ImportError(f"no decoder for {NAMES[codec]}") from None
    _prepared = codecs


class Stream:
    """Exact-length reads of one packed stream inside an open file."""

    def __init__(
        self, fd: int, packed: Packed, where: str, prefix: bytes = b""
    ) -> None:
        self._fd = fd
        self._at = packed.offset
        self._packed_left = packed.length
        self._raw_left = packed.raw
        self._where = where
        self._spare, self._at_spare = b"", 0
        self._decoder: _Decompressor | None = None
        self._errors: tuple[type[Exception], ...] = ()
        if packed.codec != STORED:
            self._decoder, self._errors = _decompressor(packed.codec, prefix)
        elif packed.length != packed.raw:
            raise MalformedError(f"{where}: a stored stream changes its length")

    @property
    def remaining(self) -> int:
        """Return how many raw bytes were not read yet."""
        return self._raw_left

    def read(self, count: int) -> bytes:
        """Return exactly `count` raw bytes.

        Raises:
            MalformedError: the stream is shorter, or broken.
        """
        if count > self._raw_left:
            raise MalformedError(f"{self._where}: more is read than it declares")
        self._raw_left -= count
        at, end = self._at_spare, self._at_spare + count
        if end <= len(self._spare):
            self._at_spare = end
            return self._spare[at:end]
        parts = [self._spare[at:]]
        got = len(parts[0])
        self._spare, self._at_spare = b"", 0
        while got < count:
            # Ask for a little more than needed: small reads share one decoder call.
            piece = self._more(
                max(count - got, min(_AHEAD, self._raw_left + count - got))
            )
            if len(piece) > count - got:
                self._spare, self._at_spare = piece, count - got
                piece = piece[: count - got]
            parts.append(piece)
            got += len(piece)
        return parts[1] if len(parts) == 2 and not parts[0] else b"".join(parts)

    def skip(self, count: int) -> None:
        """Pass over `count` raw bytes.

        Raises:
            MalformedError: the stream is shorter, or broken.
        """
        while count:
            count -= len(self.read(min(count, _AHEAD)))

    def read_some(self, count: int) -> bytes:
        """Return `count` raw bytes, or fewer where an undeclared length ends.

        Raises:
            MalformedError: the stream is broken, or longer than it may be.
        """
        parts, got = [], 0
        while got < count and not (self._decoder is not None and self._decoder.eof):
            piece = self._more(count - got, may_end=True)
            parts.append(piece)
            got += len(piece)
        self._raw_left -= got
        if self._raw_left < 0:
            raise MalformedError(f"{self._where}: too long")
        return b"".join(parts)

    def _input(self) -> bytes:
        data = os.pread(self._fd, min(_PIECE, self._packed_left), self._at)
        self._at += len(data)
        self._packed_left -= len(data)
        return data

    def _more(self, most: int, *, may_end: bool = False) -> bytes:
        """Return at most `most` raw bytes; at least one, unless it may end here.

        Raises:
            MalformedError: the stream is cut short or broken.
        """
        if self._decoder is None:
            data = os.pread(self._fd, min(most, self._packed_left), self._at)
            self._at += len(data)
            self._packed_left -= len(data)
            if not data:
                raise MalformedError(f"{self._where} is cut short")
            return data
        while True:
            if self._decoder.eof:
                raise MalformedError(f"{self._where} is shorter than it declares")
            data = b""
            if self._decoder.needs_input:
                data = self._input()
                if not data:
                    raise MalformedError(f"{self._where} is cut short")
            out = self._decode(data, most)
            if out or (may_end and self._decoder.eof):
                return out

    def _decode(self, data: bytes, most: int) -> bytes:
        assert self._decoder is not None
        try:
            return self._decoder.decompress(data, most)
        except self._errors as error:
            raise MalformedError(f"{self._where} is broken: {error}") from error

    def finish(self) -> None:
        """Check that the stream ends here, in both lengths.

        Raises:
            MalformedError: raw or packed bytes are left over.
        """
        if self._raw_left or self._at_spare < len(self._spare):
            raise MalformedError(f"{self._where}: not all of it is used")
        decoder = self._decoder
        while decoder is not None and not decoder.eof:
            data = self._input() if decoder.needs_input else b""
            if (decoder.needs_input and not data) or self._decode(data, 1):
                raise MalformedError(f"{self._where} does not end where it should")
        if self._packed_left or (decoder is not None and decoder.unused_data):
            raise MalformedError(f"{self._where} has bytes after its end")


def read_whole(fd: int, packed: Packed, where: str, *, limit: int) -> bytes:
    """Return all raw bytes of a stream of at most `limit` bytes.

    Raises:
        MalformedError: it declares more, or is broken.
    """
    if packed.raw > limit:
        raise MalformedError(f"{where} has {packed.raw} bytes, the limit is {limit}")
    stream = Stream(fd, packed, where)
    data = stream.read(packed.raw)
    stream.finish()
    return data
