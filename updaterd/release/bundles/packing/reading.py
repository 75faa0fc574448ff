# SPDX-License-Identifier: Apache-2.0
"""Bytes of files that must not change while they are read."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from mmap import mmap
from typing import NoReturn

from updaterd.errors import BrokenError

Range = tuple[str, int, int]
"""Path, place and length of bytes of a file."""

_PIECE = 1 << 20


def whole(ranges: Sequence[Range]) -> bytes:
    """Return ranges, one after another.

    Raises:
        BrokenError: a file has become shorter.
        OSError: the disk refused.
    """
    return b"".join(_range(*part) for part in ranges)


def writable(ranges: Sequence[Range]) -> bytearray:
    """Return ranges as `whole` does, to be changed in place.

    Raises:
        BrokenError: a file has become shorter.
        OSError: the disk refused.
    """
    data = bytearray(sum(count for _, _, count in ranges))
    with memoryview(data) as view:
        at = 0
        for part in ranges:
            _fill(view[at : at + part[2]], part)
            at += part[2]
    return data


def apart(part: Range) -> mmap:
    """Return a range in memory that the system has back when it is closed.

    Raises:
        BrokenError: a file has become shorter.
        OSError: the disk refused.
    """
    data = mmap(-1, part[2])
    with memoryview(data) as view:
        _fill(view, part)
    return data


def _fill(view: memoryview, part: Range) -> None:
    path, offset, _ = part
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        at = 0
        while at < len(view):
            got = file.readinto(view[at:])
            if not got:
                _refuse(path)
            at += got


class Joined:
    """Ranges as one, read where they are asked for."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = ranges
        self._starts = list(accumulate((r[2] for r in ranges), initial=0))

    def read(self, low: int, high: int) -> bytes:
        """Return the bytes [low, high).

        Raises:
            BrokenError: a file has become shorter.
            OSError: the disk refused.
        """
        parts = []
        while low < high:
            index = bisect_right(self._starts, low) - 1
            path, offset, _ = self._ranges[index]
            count = min(high, self._starts[index + 1]) - low
            parts.append(_range(path, offset + low - self._starts[index], count))
            low += count
        return parts[0] if len(parts) == 1 else b"".join(parts)


def pieces(paths: Sequence[str]) -> Iterator[bytes]:
    """Yield what files hold, one after another.

    Raises:
        OSError: the disk refused.
    """
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(_PIECE):
                yield data


def _range(path: str, offset: int, count: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(count)  # one read: a second one would need a second copy
        while len(data) < count and (more := file.read(count - len(data))):
            data += more
    if len(data) < count:
        _refuse(path)
    return data


def _refuse(path: str) -> NoReturn:
    """Say that a file has become shorter.

    Raises:
        BrokenError: always.
    """
    raise BrokenError(
        f"{path} changed while the delta was made",
        do="leave the trees alone while they are pushed",
        code="tree_changed",
    )
