# SPDX-License-Identifier: Apache-2.0
"""TOML tables, read key by key: mistakes are collected, not raised.

An owner who made three typos wants to hear of three typos.
"""

from collections.abc import Mapping
from pathlib import PurePath

from updaterd.core.units import parse_duration
from updaterd.errors import MalformedError


class Table:
    """A TOML table; `values` is what the parser gave, None when it is absent.

    Args:
        values: the table's contents.
        name: dotted name, for messages; empty for the whole document.
        mistakes: grows by one line a mistake.
    """

    def __init__(self, values: object, name: str, mistakes: list[str]) -> None:
        self._name = name
        self._mistakes = mistakes
        self._known: set[str] = set()
        self._values: dict[str, object] = {}
        if isinstance(values, Mapping):
            self._values = dict(values)
        elif values is not None:
            mistakes.append(f"[{name}] must be a table")

    def _take(self, key: str, kind: type | tuple[type, ...], expected: str) -> object:
        self._known.add(key)
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, kind) or isinstance(value, bool):
            self.wrong(key, f"must be {expected}")
            return None
        return value

    def wrong(self, key: str, why: str) -> None:
        """Add a mistake about `key`."""
        self._mistakes.append(f"{self._dotted(key)} {why}")

    def _dotted(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def text(self, key: str, default: str = "", *, required: bool = False) -> str:
        """Return a string, or `default`."""
        value = self._take(key, str, "a string")
        if value is None and required and key not in self._values:
            self.wrong(key, "is missing")
        elif required and isinstance(value, str) and not value.strip():
            self.wrong(key, "is empty")
        return value if isinstance(value, str) else default

    def path(self, key: str, *, required: bool = False) -> PurePath | None:
        """Return an absolute path, or None."""
        value = self.text(key, required=required)
        if value and not value.startswith("/"):
            self.wrong(key, f"must be an absolute path, it is {value!r}")
        return PurePath(value) if value else None

    def seconds(self, key: str, default: float, *, low: float = 0.0) -> float:
        """Read a number of seconds, or a text such as "7d" or "30min"."""
        value = self._take(key, (int, float, str), 'a number of seconds or like "6h"')
        if value is None:
            return default
        try:
            number = parse_duration(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type] # _take has checked it
        except MalformedError as error:
            self.wrong(key, str(error))
            return default
        if not low <= number < 10**9:
            self.wrong(key, f"must be at least {low:g} s, it is {value!r}")
            return default
        return number

    def whole(self, key: str, default: int, *, low: int) -> int:
        """Return an integer of at least `low`, or `default`."""
        value = self._take(key, int, "a whole number")
        if not isinstance(value, int):
            return default
        if value < low:
            self.wrong(key, f"must be at least {low}, it is {value}")
            return default
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false, or `default`."""
        self._known.add(key)
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            self.wrong(key, "must be true or false")
            return default
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """Return a list of strings (an argv, unit names), or nothing."""
        value = self._take(key, list, "a list of strings")
        if not isinstance(value, list):
            return ()
        if not all(isinstance(word, str) and word for word in value):
            self.wrong(key, "must be a list of strings")
            return ()
        return tuple(value)

    def table(self, key: str) -> "Table":
        """Return a table inside this one."""
        self._known.add(key)
        return Table(self._values.get(key), self._dotted(key), self._mistakes)

    def has(self, key: str) -> bool:
        """Tell whether a key is there, whatever it says."""
        return key in self._values

    def names(self) -> list[str]:
        """Return all keys: the table's keys are names, not settings."""
        self._known.update(self._values)
        return list(self._values)

    def done(self) -> None:
        """Name the keys that nobody asked for."""
        for key in self._values:
            if key not in self._known:
                import difflib  # noqa: PLC0415 # only for whoever mistyped

                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                self.wrong(key, f"is not a known setting{hint}")
