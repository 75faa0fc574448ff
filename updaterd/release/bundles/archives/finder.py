# SPDX-License-Identifier: Apache-2.0
"""Where deflate streams and programs lie in a file, whatever holds them.

By their own marks, not by a table of contents: the local header of a zip's member, a
gzip header, a zlib header with the right checksum behind its stream. So a zip is found
in a tar, behind a program, or in another zip that stores it, and one that is damaged
or hostile is found as far as it is sound. What does not inflate is bytes.
"""

import re
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path

from updaterd.artifact.archives.layout import GROUND, GROWTH, MAX_DEPTH, MAX_STREAMS

View = bytes | mmap
"""Bytes of a file, or of a stream."""

LEAST_PROGRAM = 32 << 10
"""Bytes below which a program is not cut out."""
MAX_PROGRAMS = 4096  # of a side: each cuts a file in three at most
_LEAST_PACKED, _LEAST = 32, 64  # bytes of a stream, and of what is in it
_HELD = 8 << 20  # bytes of a stream that are held in memory
_ATTEMPT = 1 << 8  # bytes that might have been inflated in the time it takes
_FIRST, _PIECE, _MOST = 1 << 12, 1 << 16, 1 << 20
_MARK = re.compile(
    rb"PK\x03\x04|\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|IDAT[\x08\x18\x28\x38\x48\x58\x68]"
)
_CHUNK = b"IDAT"
_ELF = b"\x7fELF\x02\x01"
_LOCAL = struct.Struct("<4xHHH4xIIIHH")
_BLOCK = 512
_OCTAL = re.compile(rb"[\0 ]*([0-7]*)[\0 ]*")
_LONGEST_NAME = 1 << 10  # bytes of a member's name that are kept
_MOST_SEGMENTS = 1 << 10  # of a program; real ones have about ten
_HEADED = b"P\x1f"  # what headers begin with that many other bytes do not


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is stored as it is."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Stream:
    """A deflate stream.

    Attributes:
        start: where it begins in what it is in.
        end: behind its last byte there.
        name: of what is in it, as far as it has one.
        digest: of its own bytes.
        inner: what lies in it, inflated.
    """

    start: int
    end: int
    name: str
    digest: bytes
    inner: tuple["Mark", ...]


Mark = Program | Stream


def digests(marks: Iterable[Mark]) -> Iterator[bytes]:
    """Yield the digests of all streams, those in streams too."""
    for mark in marks:
        if isinstance(mark, Stream):
            yield mark.digest
            yield from digests(mark.inner)


class Budget:
    """How much may be inflated, on one side: what readers take, and no more work.

    Attributes:
        folder: where what is inflated is kept meanwhile.
        room: bytes of the file at hand, failed attempts included.
        streams: that may still be found.
        programs: that may still be found.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.room = 0
        self.streams = MAX_STREAMS
        self.programs = MAX_PROGRAMS
        self._ground = GROUND
        self._length = 0

    def begin(self, length: int) -> None:
        """Turn to a file."""
        self._length = GROWTH * length
        # A stream is inflated to look for it and again for each that it lies in.
        self.room = (self._length + self._ground) // 2

    def end(self) -> None:
        """Leave that file: what it took beyond its share the others lack."""
        used = (self._length + self._ground) // 2 - self.room
        self._ground -= max(0, 2 * used - self._length)


def opened(path: Path) -> View:
    """Return the bytes of a file.

    Raises:
        OSError: the disk refused.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return b""
        return mmap(file.fileno(), 0, access=ACCESS_READ)


def inflated(view: View, start: int, budget: Budget) -> tuple[int, View] | None:
    """Return where the stream that begins at a place ends, and what is in it.

    Args:
        view: what it is in.
        start: the place.
        budget: pays for what comes out, also where it turns out to be no stream.

    Returns:
        None when there is none, or more is in it than is left of the budget.

    Raises:
        OSError: the disk refused.
    """
    decoder = zlib.decompressobj(-15)
    at, step, size = start, _FIRST, 0
    parts: list[bytes] = []
    file = None
    try:
        while not decoder.eof:
            packed = decoder.unconsumed_tail
            if not packed:
                packed = view[at : at + step]
                at += len(packed)
                step = _PIECE
                if not packed:
                    return None
            data = decoder.decompress(packed, _MOST)
            size += len(data)
            # also what is read to no end: blocks of nothing are work, too
            unread = len(decoder.unconsumed_tail) + len(decoder.unused_data)
            budget.room -= max(len(data), len(packed) - unread)
            if budget.room < 0:
                return None
            parts.append(data)
            if size > _HELD:
                if file is None:
                    file = tempfile.TemporaryFile(dir=budget.folder)  # noqa: SIM115 - closed below
                file.writelines(parts)
                parts.clear()
        end = at - len(decoder.unused_data)
        if file is None:
            return end, b"".join(parts)
        file.writelines(parts)
        file.flush()
        return end, mmap(file.fileno(), 0, access=ACCESS_READ)
    except zlib.error:
        return None
    finally:
        if file is not None:
            file.close()


def survey(
    view: View, budget: Budget, name: str = "", depth: int = 0
) -> tuple[Mark, ...]:
    """Return what lies in some bytes, by place.

    Args:
        view: the bytes.
        budget: what may be done.
        name: of these bytes.
        depth: streams that they are in.
    """
    return tuple(_marks(view, budget, name, depth))


def _marks(view: View, budget: Budget, name: str, depth: int) -> Iterator[Mark]:
    programs = dict(_stored(view))
    if end := _program_end(view, 0, len(view)):
        programs[0] = (end, name)
    at = 0
    for start, (end, program) in sorted(programs.items()):
        if start < at or budget.programs <= 0:
            continue
        yield from _between(view, at, start, budget, name, depth)
        budget.programs -= 1
        yield Program(start, end, program)
        at = end
    yield from _between(view, at, len(view), budget, name, depth)


def _between(  # noqa: PLR0913, PLR0917 - what is known of it
    view: View, at: int, stop: int, budget: Budget, name: str, depth: int
) -> Iterator[Mark]:
    """Yield what lies in [at, stop)."""
    while depth < MAX_DEPTH and budget.room > 0 and budget.streams > 0:
        match = _MARK.search(view, at, stop)
        if match is None:
            return
        place = match.start()
        at = place + 1
        budget.room -= _ATTEMPT
        head = _head(view, place)
        if head is None:
            continue
        start, stream_name, stored = head
        if stored:  # as it is: what lies in it has its own marks
            end = _program_end(view, start, stored)
            if end and end <= stop and budget.programs > 0:
                budget.programs -= 1
                yield Program(start, end, stream_name)
                at = end
            continue
        stream = _stream(view, place, start, stream_name or name, budget, depth)
        if stream is not None and stream.end <= stop:
            yield stream
            at = stream.end


def _stream(  # noqa: PLR0913, PLR0917 - what is known of it
    view: View, mark: int, start: int, name: str, budget: Budget, depth: int
) -> Stream | None:
    """Return the stream that begins at a place, if there is one."""
    ending = inflated(view, start, budget)
    if ending is None:
        return None
    end, content = ending
    if len(content) < _LEAST or end - start < _LEAST_PACKED:
        return None
    if view[mark] not in _HEADED:  # a zlib header is two bytes, like many others
        checked = zlib.adler32(content).to_bytes(4, "big")
        if view[end : end + 4] != checked:
            return None
    budget.streams -= 1
    inner = survey(content, budget, name, depth + 1)
    digest = sha256(memoryview(view)[start:end]).digest()
    return Stream(start, end, name, digest, inner)


def _head(view: View, place: int) -> tuple[int, str, int] | None:
    """Return where the stream behind a header begins, and what it is called.

    Returns:
        A third number where the bytes are stored as they are: where they end. None
        where there is no such header.
    """
    first = view[place]
    if first == 0x50:
        return _member(view, place)
    if first == 0x1F:
        return _gzip(view, place)
    if first == _CHUNK[0]:
        place += len(_CHUNK)
    two = view[place : place + 2]
    if len(two) < 2 or int.from_bytes(two, "big") % 31 or two[1] & 0x20:
        return None
    return place + 2, "", 0


def _member(view: View, place: int) -> tuple[int, str, int] | None:
    head = view[place : place + _LOCAL.size]
    if len(head) < _LOCAL.size:
        return None
    _, flags, method, _, packed, size, names, extra = _LOCAL.unpack(head)
    start = place + _LOCAL.size + names + extra
    if flags & 1 or method not in {0, 8}:  # what is encrypted is noise
        return None
    called = view[place + _LOCAL.size : place + _LOCAL.size + names][:_LONGEST_NAME]
    name = called.decode("utf-8", "replace")
    if method == 8:
        return start, name, 0
    end = start + size
    if flags & 8 or packed != size or end > len(view) or size < LEAST_PROGRAM:
        return None
    return start, name, end


def _gzip(view: View, place: int) -> tuple[int, str, int] | None:
    head = view[place : place + (1 << 10)]
    if len(head) < 18 or head[3] & 0xE0:
        return None
    flags, at = head[3], 10
    if flags & 4:
        at += 2 + int.from_bytes(head[at : at + 2], "little")
    name = b""
    for flag in (8, 16):
        if flags & flag:
            end = head.find(b"\0", at)
            if end < 0:
                return None
            name, at = name or head[at:end], end + 1
    at += 2 if flags & 2 else 0
    return place + at, name.decode("latin-1"), 0


def _program_end(view: View, start: int, end: int) -> int:
    """Return where a program that begins at a place ends; 0 where none does."""
    if view[start : start + 6] != _ELF or end - start < LEAST_PROGRAM:
        return 0
    head = view[start : start + 64]
    segments, sections = struct.unpack_from("<QQ", head, 32)
    size, count, wide, many = struct.unpack_from("<HHHH", head, 54)
    last = sections + wide * many
    too_many = count > _MOST_SEGMENTS  # a table that each header before it would read
    if size != 56 or too_many or segments + size * count > end - start:
        return 0
    table = view[start + segments : start + segments + size * count]
    for _, _, offset, _, _, length, _, _ in struct.iter_unpack("<IIQQQQQQ", table):
        last = max(last, offset + length)
    return start + last if LEAST_PROGRAM <= last <= end - start else 0


def _stored(view: View) -> Iterator[tuple[int, tuple[int, str]]]:
    """Yield where programs lie in a tar: start, end and name."""
    at = 0
    while view[at + 257 : at + 262] == b"ustar":
        head = view[at : at + _BLOCK]
        # digits alone: a sign would lead backwards, and what is larger than they can
        # say has a notation of its own
        digits = _OCTAL.fullmatch(head[124:136])
        if digits is None:
            return
        size = int(digits[1] or b"0", 8)
        start = at + _BLOCK
        if end := _program_end(view, start, min(start + size, len(view))):
            yield start, (end, head[:100].rstrip(b"\0").decode("utf-8", "replace"))
        at = start + -(-size // _BLOCK) * _BLOCK
