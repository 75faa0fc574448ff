# SPDX-License-Identifier: Apache-2.0
"""JSON from outside, read strictly.

A size limit first, then a typed error for everything that is not as expected.

Parser bombs end here: nesting beyond what the recursion limit allows, integers of
thousands of digits, NaN and Infinity (RFC 8259 section 6 has neither), duplicate
names (section 4: behaviour undefined, so refused) and bytes that are not UTF-8.
"""

import json
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from updaterd.errors import MalformedError

MAX_INTEGER = 2**53 - 1
"""Largest integer in any document: I-JSON (RFC 7493 section 2.2)."""

_MAX_DIGITS = 16
MAX_DEPTH = 32
"""Most levels of nesting."""

# A string, or what comes with a further value; possessive, so nothing is read twice.
_VALUE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{,]', re.DOTALL)

# A bracket, or a string, also one that nothing ends; possessive, too.
_MARK = re.compile(r'[\[{\]}]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_OPENING = frozenset("[{")

T = TypeVar("T")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _short_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS + 1:
        raise ValueError(f"integer of {len(digits)} digits")
    value = int(digits)
    if abs(value) > MAX_INTEGER:
        raise ValueError("integer beyond 2^53")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


DECODER = json.JSONDecoder(
    parse_constant=_no_constant, parse_int=_short_int, object_pairs_hook=_unique
)
"""As strict as `parse_object`, for one value at a time."""


def check_depth(text: str, where: str) -> None:
    """Refuse deep nesting before the recursive parser sees it.

    Raises:
        MalformedError: it nests too deep.
    """
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _count_depth(text, where)


def _count_depth(text: str, where: str) -> None:
    """Refuse nesting deeper than `MAX_DEPTH`.

    Raises:
        MalformedError: it nests too deep.
    """
    depth = 0
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedError(f"{where} nests deeper than {MAX_DEPTH} levels")
        elif mark[0] != '"':
            depth -= 1


def _check_count(raw: bytes, where: str, most: int) -> None:
    """Refuse a crowd of values before the parser makes an object of each.

    Raises:
        MalformedError: there are too many.
    """
    if raw.count(b"[") + raw.count(b"{") + raw.count(b",") + raw.count(b'"') <= most:
        return
    for count, _ in enumerate(_VALUE.finditer(raw), 1):
        if count > most:
            raise MalformedError(
                f"{where} holds more than {most} values", code="too_large"
            )


def parse_object(
    raw: bytes, *, where: str, limit: int, most: int | None = None
) -> "Fields":
    """Return the JSON object in `raw`, ready to be read field by field.

    Args:
        raw: UTF-8 text.
        where: what the document is, for messages ("manifest of acme 1.0.0").
        limit: largest accepted size in bytes, checked before parsing.
        most: largest accepted number of names, strings, items and containers
            together, checked before parsing; None for no limit of its own.

    Raises:
        MalformedError: too large, not UTF-8, not JSON, or not an object.
    """
    if len(raw) > limit:
        raise MalformedError(
            f"{where} has {len(raw)} bytes, the limit is {limit}", code="too_large"
        )
    try:
        text = raw.decode("utf-8")
        check_depth(text, where)
        if most is not None:
            _check_count(raw, where, most)
        value = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise MalformedError(f"{where} is a {type(value).__name__}, not an object")
    return Fields(value, where)


class Fields:
    """One JSON object whose members are asked for by name and type.

    Unknown members are ignored: a newer publisher may add some.
    """

    __slots__ = ("_members", "where")

    def __init__(self, members: dict[str, object], where: str) -> None:
        self._members = members
        self.where = where

    def __contains__(self, name: str) -> bool:
        """Tell whether `name` is present and not null."""
        return self._members.get(name) is not None

    def _get(self, name: str, kind: type[T]) -> T:
        value = self._members.get(name)
        # bool is an int in Python, never in JSON
        if not isinstance(value, kind) or (
            isinstance(value, bool) and kind is not bool
        ):
            actual = "missing" if value is None else _a(type(value))
            raise MalformedError(
                f"{self.where}: {name!r} must be {_a(kind)}, it is {actual}"
            )
        return value

    def text(self, name: str, *, longest: int = 256) -> str:
        """Return a string member of at most `longest` characters.

        Raises:
            MalformedError: missing, another type, too long, or with lone
                surrogates, which no file name or log line could carry.
        """
        value = self._get(name, str)
        if len(value) > longest:
            raise MalformedError(f"{self.where}: {name!r} is longer than {longest}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise MalformedError(f"{self.where}: {name!r} is not Unicode") from error
        return value

    def integer(self, name: str, *, low: int = 0, high: int = MAX_INTEGER) -> int:
        """Return an integer member within [low, high].

        Raises:
            MalformedError: missing, another type or out of range.
        """
        value = self._get(name, int)
        if not low <= value <= high:
            raise MalformedError(
                f"{self.where}: {name!r} is {value}, outside {low}..{high}"
            )
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean member.

        Raises:
            MalformedError: missing or another type.
        """
        return self._get(name, bool)

    def hexdigest(self, name: str) -> str:
        """Return a SHA-256 in lower-case hexadecimal.

        Raises:
            MalformedError: missing or anything else.
        """
        value = self._get(name, str)
        if len(value) != 64 or value.strip("0123456789abcdef"):
            raise MalformedError(f"{self.where}: {name!r} is not a sha256")
        return value

    def members(self, name: str) -> dict[str, object]:
        """Return a member that is an object, as it is.

        Raises:
            MalformedError: missing or another type.
        """
        return self._get(name, dict)

    def fields(self, name: str) -> "Fields":
        """Return a member that is an object.

        Raises:
            MalformedError: missing or another type.
        """
        return Fields(self._get(name, dict), f"{self.where}: {name}")

    def texts(self, name: str, *, most: int) -> tuple[str, ...]:
        """Return an array member of strings; nothing, when it is missing.

        Raises:
            MalformedError: another type, too many, or one of them too long.
        """
        if name not in self:
            return ()
        items = self._get(name, list)
        if len(items) > most:
            raise MalformedError(
                f"{self.where}: {name!r} has {len(items)} items, the limit is {most}"
            )
        where = f"{self.where}: {name}"
        return tuple(Fields({"item": item}, where).text("item") for item in items)

    def pairs(self, name: str, *, most: int) -> tuple[tuple[int, int], ...]:
        """Return an array member of arrays of two integers each.

        Raises:
            MalformedError: missing, another type, too many, or out of range.
        """
        items = self._get(name, list)
        if len(items) > most:
            raise MalformedError(
                f"{self.where}: {name!r} has {len(items)} items, the limit is {most}"
            )
        rows = []
        for index, item in enumerate(items):
            where = f"{self.where}: {name}[{index}]"
            if not isinstance(item, list) or len(item) != 2:
                raise MalformedError(f"{where} is not two numbers")
            row = Fields({"first": item[0], "second": item[1]}, where)
            rows.append((row.integer("first"), row.integer("second")))
        return tuple(rows)

    def objects(
        self, name: str, read: Callable[["Fields"], T], *, most: int
    ) -> tuple[T, ...]:
        """Return `read(item)` for every object of an array member.

        Raises:
            MalformedError: missing, another type, more than `most` items, or an
                item that is not an object or that `read` refuses.
        """
        items = self._get(name, list)
        if len(items) > most:
            raise MalformedError(
                f"{self.where}: {name!r} has {len(items)} items, the limit is {most}"
            )
        out = []
        for index, item in enumerate(items):
            if not isinstance(item, dict):
                raise MalformedError(f"{self.where}: {name}[{index}] is not an object")
            out.append(read(Fields(item, f"{self.where}: {name}[{index}]")))
        return tuple(out)


def encode(document: object) -> bytes:
    """Return canonical JSON: sorted names, no spaces, UTF-8, one final newline."""
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return text.encode() + b"\n"


def _a(kind: type) -> str:
    return f"{'an' if kind is int else 'a'} {kind.__name__}"
