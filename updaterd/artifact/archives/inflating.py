# SPDX-License-Identifier: Apache-2.0
"""Old archives inflated, front to back, in bounded memory.

Nothing is believed of an old file: it may be damaged. What cannot be inflated as the
layout says reads as zeros, like any old file that is not what it was.
"""

from __future__ import annotations

import os
import zlib

from updaterd.artifact.archives.layout import CLOSE, GROUND, GROWTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class _Flow(Protocol):
        def take(self, most: int) -> bytes:
            """Return up to so many bytes; none at the end."""

        def back(self, data: bytes) -> None:
            """Take bytes back that were not needed."""


_PIECE = 1 << 16


class DamagedError(Exception):
    """A file is not what the layout says."""


class Allowance:
    """How much may come out of all decoders for the old archives of a delta.

    What lies packed in a stream comes out, too, and is in no length that a bundle
    lists: an old file that was made to hurt could be mostly that.
    """

    def __init__(self) -> None:
        self._ground = GROUND
        self._share = 0

    def begin(self, length: int) -> None:
        """Turn to an archive, which has a share by its length as listed.

        So one that was made to hurt takes nothing from the others but the ground.
        """
        self._share = GROWTH * length

    def spend(self, count: int) -> None:
        """Count bytes.

        Raises:
            DamagedError: they are too many: no archive that a publisher's finder
                looked into is like that.
        """
        self._share -= count
        if self._share < 0:
            self._ground += self._share
            self._share = 0
            if self._ground < 0:
                raise DamagedError


class _File:
    """An open file, front to back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def take(self, most: int) -> bytes:
        data = os.pread(self._fd, most, self._at)
        self._at += len(data)
        return data

    def back(self, data: bytes) -> None:
        self._at -= len(data)


class _Inflated:
    """What is in a deflate stream, front to back."""

    def __init__(self, below: _Flow, allowance: Allowance) -> None:
        self._below = below
        self._allowance = allowance
        self._decoder = zlib.decompressobj(-15)
        self._spare = b""

    def take(self, most: int) -> bytes:
        """Return up to so many bytes; none at the end of the stream.

        Raises:
            DamagedError: it is no such stream, is cut short, or too much is in it.
        """
        if self._spare:
            data, self._spare = self._spare[:most], self._spare[most:]
            return data
        while not self._decoder.eof:
            packed = self._decoder.unconsumed_tail or self._below.take(_PIECE)
            try:
                data = self._decoder.decompress(packed, most)
            except zlib.error as error:
                raise DamagedError from error
            self._allowance.spend(len(data))
            if self._is_over():
                self._below.back(self._decoder.unused_data)
            if data:
                return data
            if not packed:
                raise DamagedError
        return b""

    def _is_over(self) -> bool:
        return self._decoder.eof

    def back(self, data: bytes) -> None:
        """Take bytes back that were not needed."""
        self._spare = data + self._spare


def inflate(
    fd: int,
    steps: Iterable[int],
    write: Callable[[bytes], object],
    allowance: Allowance,
) -> None:
    """Write what an open file is, inflated.

    Args:
        fd: of the file.
        steps: see `layout.Archive`.
        write: takes the bytes, as many as the steps say at most.
        allowance: what may be inflated, shared by all archives.

    Raises:
        DamagedError: the file is not what the steps say, or holds too much.
        OSError: it cannot be read; or the disk refused what was written.
    """
    flows: list[_Flow] = [_File(fd)]
    for step in steps:
        if step >= 0:
            _copy(flows[-1], step, write)
        elif step == CLOSE:
            if flows.pop().take(1):
                raise DamagedError  # there is more in the stream
        else:
            flows.append(_Inflated(flows[-1], allowance))
    if flows[-1].take(1):
        raise DamagedError  # the file is longer


def _copy(flow: _Flow, count: int, write: Callable[[bytes], object]) -> None:
    while count:
        data = flow.take(min(count, _PIECE))
        if not data:
            raise DamagedError
        write(data)
        count -= len(data)
