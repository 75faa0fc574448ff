# SPDX-License-Identifier: Apache-2.0
"""The paces that a publisher can choose from, by name or out of a file.

Three are built in. Others are tables of `release.toml`, or a TOML file with the same
keys:

    [paces.careful]
    steps = [[5, "0s"], [100, "1d"], [1000, "3d"]]
    first = ["staff"]
    strict = true
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from updaterd.core import report
from updaterd.core.pace import MAX_FIRST, Pace, Step, fault_of
from updaterd.core.units import parse_duration
from updaterd.errors import BrokenError, MalformedError

AT_ONCE = "at-once"
_HOUR, _DAY = 3600, 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A pace without a date.

    Attributes:
        steps: none: there is no pace.
        first: tags whose machines belong to the first step.
        strict: an updaterd that does not know what a pace is passes the release over.
    """

    steps: tuple[Step, ...] = ()
    first: tuple[str, ...] = ()
    strict: bool = False

    def starting(self, at: int) -> Pace | None:
        """Return the pace of a release that is published at this time."""
        if not self.steps:
            return None
        return Pace(published_at=at, steps=self.steps, first=self.first)

    def is_of(self, pace: Pace | None) -> bool:
        """Tell whether a release was published with this."""
        return self.starting(pace.published_at if pace else 0) == pace


NONE = Profile()
BUILT_IN: Mapping[str, Profile] = {
    AT_ONCE: NONE,
    "canary": Profile(steps=(Step(10, 0), Step(1000, _DAY))),
    "staged": Profile(steps=(Step(10, 0), Step(100, 4 * _HOUR), Step(1000, _DAY))),
}


def find(name: str, own: Mapping[str, Profile]) -> Profile:
    """Return a pace by its name, else out of the file of that name.

    Raises:
        BrokenError: there is neither.
    """
    known = {**BUILT_IN, **own}
    if name in known:
        return known[name]
    try:
        return read(tomllib.loads(Path(name).read_text("utf-8")))
    except FileNotFoundError:
        raise BrokenError(
            f"there is no pace {name!r:.80}, and no file of that name",
            means="nothing was published",
            do=f"use one of {', '.join(known)}, or a TOML file with `steps`",
            code="bad_pace",
        ) from None
    except (OSError, ValueError, TypeError, MalformedError) as error:
        raise BrokenError(
            f"{name} holds no pace: {error}",
            means="nothing was published",
            do='write: steps = [[10, "0s"], [100, "4h"], [1000, "1d"]]',
            code="bad_pace",
        ) from error


def read_all(tables: object) -> dict[str, Profile]:
    """Return the paces of `release.toml`.

    Raises:
        ValueError: one makes no sense.
        TypeError: they are no tables.
    """
    if not isinstance(tables, Mapping):
        raise TypeError("`paces` is a table of tables")
    profiles = {}
    for name, table in tables.items():
        if name in BUILT_IN:
            raise ValueError(f"`paces.{name}`: this name is built in, choose another")
        try:
            profiles[str(name)] = read(table)
        except (ValueError, TypeError, MalformedError) as error:
            raise ValueError(f"`paces.{name}`: {error}") from error
    return profiles


def read(table: object) -> Profile:
    """Return the pace in a parsed table.

    Raises:
        ValueError: it makes no sense.
        TypeError: a value is of another type.
        MalformedError: a duration is none.
    """
    if not isinstance(table, Mapping):
        raise TypeError("it is no table")
    if unknown := sorted(set(table) - {"steps", "first", "strict"}):
        raise ValueError(f"{unknown[0]!r} is not known; there are steps, first, strict")
    steps = tuple(
        Step(_whole(share), _seconds(after)) for share, after in table.get("steps", ())
    )
    if fault := fault_of(steps):
        raise ValueError(fault)
    first = tuple(table.get("first", ()))
    if len(first) > MAX_FIRST or not all(
        isinstance(tag, str) and report.is_tag(tag) for tag in first
    ):
        raise ValueError(
            f"`first` is a list of at most {MAX_FIRST} tags (a-z, 0-9, -_)"
        )
    strict = table.get("strict", False)
    if not isinstance(strict, bool):
        raise TypeError("`strict` is true or false")
    return Profile(steps=steps, first=first, strict=strict)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is no number of machines of 1000")
    return value


def _seconds(value: object) -> int:
    return int(parse_duration(str(value)))
