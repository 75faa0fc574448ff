# SPDX-License-Identifier: Apache-2.0
"""Unsigned LEB128 integers, as bundle headers and scripts write them."""

from __future__ import annotations

from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX = 2**53 - 1
"""Largest number in any bundle, as in any document (I-JSON)."""


def pack(*values: int) -> bytes:
    """Return the values one after another, seven bits a byte, lowest first."""
    out = bytearray()
    for number in values:
        value = number
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def gaps(indices: Iterable[int]) -> bytes:
    """Return ascending indices as the distances between them."""
    out, expected = [], 0
    for index in indices:
        out.append(index - expected)
        expected = index + 1
    return pack(*out)


def fold(number: int) -> int:
    """Return a signed number as one without sign: 0, -1, 1, -2 as 0, 1, 2, 3."""
    return 2 * number if number >= 0 else -2 * number - 1


def unfold(number: int) -> int:
    """Return what `fold` was given."""
    return -(number >> 1) - 1 if number & 1 else number >> 1


class Cursor:
    """Reads numbers and bytes in order, refusing whatever is not there."""

    __slots__ = ("_at", "_data", "_where")

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._at = 0
        self._where = where

    @property
    def position(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def number(self, high: int = MAX) -> int:
        """Return the next number, at most `high`.

        Raises:
            MalformedError: cut short, too large, or not in its shortest form.
        """
        value = shift = 0
        while True:
            byte = self.raw(1)[0]
            value |= (byte & 0x7F) << shift
            if value > high:
                raise MalformedError(f"{self._where}: a number is beyond {high}")
            if byte < 0x80:
                if not byte and shift:
                    raise MalformedError(f"{self._where}: a number has idle bytes")
                return value
            shift += 7
            if shift > 56:
                raise MalformedError(f"{self._where}: a number is too long")

    def numbers(self, count: int) -> list[int]:
        """Return the next `count` numbers, faster than as many calls of `number`.

        Raises:
            MalformedError: one is as `number` refuses it.
        """
        data, at = self._data, self._at
        last = len(data) - 1
        out = []
        for _ in range(count):
            byte = data[at] if at <= last else 0x80
            if byte < 0x80:
                at += 1
                out.append(byte)
            elif at < last and 0 < data[at + 1] < 0x80:
                out.append(byte & 0x7F | data[at + 1] << 7)
                at += 2
            else:  # the long way
                self._at = at
                out.append(self.number())
                at = self._at
        self._at = at
        return out

    def raw(self, count: int) -> bytes:
        """Return the next `count` bytes.

        Raises:
            MalformedError: fewer are left.
        """
        end = self._at + count
        if end > len(self._data):
            raise MalformedError(f"{self._where} is cut short")
        out = self._data[self._at : end]
        self._at = end
        return out

    def text(self, count: int) -> str:
        """Return the next `count` bytes as UTF-8.

        Raises:
            MalformedError: fewer are left, or they are not UTF-8.
        """
        try:
            return self.raw(count).decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"{self._where}: a name is not UTF-8") from error

    def indices(self, count: int, limit: int) -> list[int]:
        """Return `count` ascending indices below `limit`, stored as gaps.

        Raises:
            MalformedError: cut short, or an index reaches `limit`.
        """
        if count > limit:
            raise MalformedError(f"{self._where}: {count} indices of {limit}")
        out, expected = [], 0
        for _ in range(count):
            index = expected + self.number(limit)
            if index >= limit:
                raise MalformedError(f"{self._where}: index {index} of {limit}")
            out.append(index)
            expected = index + 1
        return out

    def end(self) -> None:
        """Check that everything was read.

        Raises:
            MalformedError: bytes are left over.
        """
        remaining = len(self._data) - self._at
        if remaining:
            raise MalformedError(f"{self._where} has {remaining} bytes too many")
