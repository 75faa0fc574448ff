# SPDX-License-Identifier: Apache-2.0
"""The old tree as a delta reads it: single files, and their virtual concatenation.

An old file that is missing, cut short or grown reads as zeros. Nothing trusts what
it reads here: every made file is hashed, and only when one comes out wrong are the
old files hashed too, to tell a bad old file from a bad delta.
"""

from __future__ import annotations

import errno
import os
from array import array
from bisect import bisect_right
from itertools import accumulate

from updaterd.artifact.apply.old_files import open_file
from updaterd.artifact.folders import Folders
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from mmap import mmap
    from pathlib import Path
    from typing import Protocol

    from updaterd.artifact.apply.blocks import Column
    from updaterd.core.tree import File

    class Apart(Protocol):
        """Files that are read from one that is open, by their places."""

        @property
        def fd(self) -> int:
            """Return what is open."""

        @property
        def inside(self) -> frozenset[int]:
            """Return the places of those files."""

        @property
        def bases(self) -> Mapping[int, int]:
            """Return where each begins that is there."""


_CLOSE = 1 << 13  # bytes read in vain that cost as much as another read
_MOST_OPEN = 32
LONG = 1 << 20
"""Bytes from which on a file is mapped."""
_STEP = 1 << 26  # it is mapped in pieces of two steps
_FEW = 512  # ranges between two looks at how much memory is taken: 32 MiB at worst
_MUCH = 40 << 20
DONTNEED = 4  # mmap.MADV_DONTNEED
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLOSED = -1
NOT_MADE = "operations: one reads a file that is not made yet"


_STATM: list[int] = []


def watch_memory() -> None:
    """Open what tells `resident`: in the cage nothing of /proc can be opened."""
    try:
        _STATM.append(os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return


def resident() -> int:
    """Return bytes of this process in memory; without /proc, more than it may have."""
    if not _STATM:
        watch_memory()
    try:
        return int(os.pread(_STATM[0], 64, 0).split(None, 2)[1]) * _PAGE
    except (OSError, IndexError):
        return _MUCH + 1


class Concatenation:
    """Old files, then files of the new tree that are already made, read as one."""

    def __init__(
        self,
        old: Path | str | int,
        files: Sequence[File],
        new: Path | str | int,
        new_files: Sequence[File] = (),
        apart: Apart | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            old: root of the old tree.
            files: of the old tree, in virtual order.
            new: root of the tree that is being made.
            new_files: of the new tree, after the old ones; readable once `allow`ed.
            apart: what is read somewhere else than in its own file.
        """
        self._old = Folders(old)
        self._new = Folders(new)
        self._apart = apart
        self._files = (*files, *new_files)
        self._old_count = len(files)
        self._starts = list(accumulate((f.length for f in self._files), initial=0))
        self.size = self._starts.pop()
        self._limit = sum(f.length for f in files)
        self._open: dict[int, int | None] = {}
        self._cut: set[int] = set()  # had fewer bytes than they should, once
        self._mapped: mmap | None = None
        self._low = self._high = 0  # of what is mapped

    def allow(self, count: int) -> None:
        """Let the first `count` made files be read: they are complete."""
        files = self._files[: self._old_count + count]
        self._limit = sum(file.length for file in files)

    def read(self, low: int, high: int) -> bytes:
        """Return the bytes [low, high), zeros where an old file has none.

        Raises:
            MalformedError: a file is read that is not made yet.
        """
        if low < high and high > self._limit:
            raise MalformedError(NOT_MADE)
        parts = []
        while low < high:
            index = bisect_right(self._starts, low) - 1
            offset = low - self._starts[index]
            count = min(high - low, self._files[index].length - offset)
            data = self._piece(index, offset, count)
            parts.append(data)
            if len(data) < count:
                parts.append(bytes(count - len(data)))
            low += count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def gather(self, starts: Column, ends: Column) -> bytearray:
        """Return many ranges, joined.

        Raises:
            MalformedError: a file is read that is not made yet.
        """
        if not all(map(int.__lt__, starts, ends)):
            # Nothing is read of an empty one, wherever it is.
            nonempty = [
                pair for pair in zip(starts, ends, strict=True) if pair[0] < pair[1]
            ]
            if not nonempty:
                return bytearray()
            starts, ends = (
                array("q", column) for column in zip(*nonempty, strict=True)
            )
        low, high = min(starts), max(ends)
        if len(starts) == 1:
            return bytearray(self.read(low, high))
        window = self._window(low, high)
        if window is not None:
            return bytearray().join(self._slices(window, starts, ends))
        room = (1 << 21) // len(starts)  # so that little is read in vain
        lows, spans = self._spans(starts, ends, min(_CLOSE, room))
        return bytearray().join([
            spans[at := bisect_right(lows, start) - 1][
                start - lows[at] : end - lows[at]
            ]
            for start, end in zip(starts, ends, strict=True)
        ])

    def _window(self, low: int, high: int) -> mmap | None:
        """Return a long file's bytes [low, high) and more, mapped; None elsewhere.

        Raises:
            MalformedError: a file is read that is not made yet.
        """
        if self._mapped is not None and self._low <= low and high <= self._high:
            return self._mapped
        index = bisect_right(self._starts, low) - 1
        start, length = self._starts[index], self._files[index].length
        if (
            length < LONG
            or high > start + length
            or high > self._limit
            or self._is_apart(index)
        ):
            return None
        first = (low - start) // _STEP * _STEP
        size = min(length - first, 2 * _STEP)
        fd = self._descriptor(index)
        if fd is None or high > start + first + size:
            return None
        from mmap import ACCESS_READ, mmap  # noqa: PLC0415 - for long files only

        self._unmap()
        try:
            self._mapped = mmap(fd, size, access=ACCESS_READ, offset=first)
        except (OSError, ValueError):  # cannot be mapped, or was cut short
            return None
        self._low = start + first
        self._high = self._low + size
        return self._mapped

    def _slices(self, window: mmap, starts: Column, ends: Column) -> list[bytes]:
        """Return ranges of the mapped file.

        Its pages count as this process's memory: when there are too many, all go.
        """
        base = self._low
        out: list[bytes] = []
        for first in range(0, len(starts), _FEW):
            batch = starts[first : first + _FEW], ends[first : first + _FEW]
            out += [window[a - base : b - base] for a, b in zip(*batch, strict=True)]
            if resident() > _MUCH:
                window.madvise(DONTNEED)
        return out

    def _unmap(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None

    def _spans(
        self, starts: Column, ends: Column, close: int
    ) -> tuple[list[int], list[memoryview]]:
        """Return the bytes that ranges lie in, neighbours read in one go."""
        lows: list[int] = []
        highs: list[int] = []
        high = -close - 1
        for start, end in sorted(zip(starts, ends, strict=True)):
            if start > high + close:
                lows.append(start)
                highs.append(end)
                high = end
            elif end > high:
                highs[-1] = high = end
        reads = map(self.read, lows, highs)
        return lows, [memoryview(data) for data in reads]

    def _descriptor(self, index: int) -> int | None:
        """Return a file, open; None for an old one that is not there.

        Raises:
            OSError: it is one of the new tree: the machine cannot read what it wrote.
        """
        if self._is_apart(index):
            if self._apart is not None and index in self._apart.bases:
                return self._apart.fd
            self._lacks(index)
            return None
        fd = self._open.get(index, _CLOSED)
        if fd == _CLOSED:
            if len(self._open) >= _MOST_OPEN:
                self._close(next(iter(self._open)))
            folders = self._old if index < self._old_count else self._new
            fd = open_file(folders, self._files[index])
            self._open[index] = fd
        if fd is None:
            self._lacks(index)
        return fd

    def _is_apart(self, index: int) -> bool:
        return self._apart is not None and index in self._apart.inside

    def _base(self, index: int) -> int:
        """Return where a file begins in what is open."""
        return 0 if self._apart is None else self._apart.bases.get(index, 0)

    def _lacks(self, index: int) -> None:
        """Note that a file cannot be read, or not to its end.

        Raises:
            OSError: it is one of the new tree.
        """
        if index >= self._old_count:
            # complete when it was written: nobody's fault but the machine's
            raise OSError(errno.EIO, os.strerror(errno.EIO), self._files[index].path)
        self._cut.add(index)

    def _piece(self, index: int, offset: int, count: int) -> bytes:
        """Return bytes of a file; fewer where an old one has no more.

        Raises:
            OSError: see `_descriptor`.
        """
        fd = self._descriptor(index)
        if fd is None:
            return b""
        try:
            data = os.pread(fd, count, offset + self._base(index))
        except OSError:
            data = b""  # a bad sector: as good as missing
        if len(data) < count:
            self._lacks(index)
        return data

    def short(self) -> tuple[str, ...]:
        """Return the paths of the old files that had fewer bytes than they should.

        They may be whole again: somebody installed them anew while they were read.
        """
        return tuple(self._files[index].path for index in sorted(self._cut))

    def _close(self, index: int) -> None:
        fd = self._open.pop(index)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close every file."""
        self._unmap()
        for index in tuple(self._open):
            self._close(index)
        self._old.close()
        self._new.close()
