# SPDX-License-Identifier: Apache-2.0
"""How many streams there are, in all and of whom: in one process, or on one host.

The processes of a host share a piece of memory, cut into seats. Each process writes
into its own seat only and adds up all of them, so nobody waits for anybody, and what
a process that died had counted is gone when its seat is cleared. Counts by address
and by token are kept in two tables of cells that several may fall into; the smaller
of the two counts, so that an honest stranger is hardly ever counted for another. Which
cells those are depends on a secret of the host: nobody chooses addresses by which
somebody else reaches his limit.
"""

import hashlib
import mmap
import os
from collections import Counter
from functools import lru_cache
from typing import Protocol

_BITS = 14
_CELLS = 1 << _BITS  # of each table
_TABLES = 2
_HEAD = 16  # numbers at the beginning of a seat
_NUMBERS = _HEAD + _TABLES * _CELLS
_SIZE = 4  # bytes of a number
_KNOWN = 1024  # keys whose cells are remembered
_SECRET = 16  # bytes, behind the last seat


class Ledger(Protocol):
    """Counts streams."""

    def total(self) -> int:
        """Return how many there are."""
        ...

    def of(self, key: str) -> int:
        """Return how many somebody has."""
        ...

    def add(self, keys: tuple[str, ...], change: int) -> None:
        """Count a stream of somebody, or forget it."""
        ...


class OwnLedger:
    """The ledger of a process that is alone."""

    def __init__(self) -> None:
        self._count = 0
        self._keys: Counter[str] = Counter()

    def total(self) -> int:
        """See `Ledger`."""
        return self._count

    def of(self, key: str) -> int:
        """See `Ledger`."""
        return self._keys[key]

    def add(self, keys: tuple[str, ...], change: int) -> None:
        """See `Ledger`."""
        self._count += change
        for key in keys:
            self._keys[key] += change
            if self._keys[key] <= 0:
                del self._keys[key]


def make_memory(seats: int) -> int:
    """Return the file descriptor of memory for so many seats."""
    fd = os.memfd_create("updaterd-streams", os.MFD_CLOEXEC)
    os.ftruncate(fd, seats * _NUMBERS * _SIZE + _SECRET)
    os.pwrite(fd, os.urandom(_SECRET), seats * _NUMBERS * _SIZE)
    return fd


class SharedLedger:
    """The ledger of a host, as one of its processes sees it.

    Args:
        fd: of the memory.
        seats: into how many parts it is cut.
        seat: which of them this process writes to.
    """

    def __init__(self, fd: int, *, seats: int, seat: int) -> None:
        size = seats * _NUMBERS * _SIZE
        memory = mmap.mmap(fd, size + _SECRET)
        self._memory = memoryview(memory)[:size].cast("I")
        self._secret = bytes(memory[size:])
        self._seats = range(0, seats * _NUMBERS, _NUMBERS)
        self._own = seat * _NUMBERS
        # asked as a stream is judged, and again as it joins
        self._cells = lru_cache(maxsize=_KNOWN)(self._find_cells)

    def clear(self, seat: int) -> None:
        """Forget what a process that ended had counted."""
        begin = seat * _NUMBERS
        self._memory[begin : begin + _NUMBERS] = memoryview(
            bytes(_NUMBERS * _SIZE)
        ).cast("I")

    def total(self) -> int:
        """See `Ledger`."""
        return sum(self._memory[seat] for seat in self._seats)

    def of(self, key: str) -> int:
        """See `Ledger`."""
        return min(
            sum(self._memory[seat + cell] for seat in self._seats)
            for cell in self._cells(key)
        )

    def add(self, keys: tuple[str, ...], change: int) -> None:
        """See `Ledger`."""
        memory, own = self._memory, self._own
        memory[own] += change
        for key in keys:
            for cell in self._cells(key):
                memory[own + cell] += change

    def _find_cells(self, key: str) -> tuple[int, int]:
        digest = hashlib.blake2b(key.encode(), digest_size=4, key=self._secret).digest()
        number = int.from_bytes(digest)  # the same in every process of this host
        return (
            _HEAD + number % _CELLS,
            _HEAD + _CELLS + (number >> _BITS) % _CELLS,
        )
