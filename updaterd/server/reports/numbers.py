# SPDX-License-Identifier: Apache-2.0
"""A database of reports, and the numbers of names that repeat in it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import Any

from updaterd.core.report import Report
from updaterd.server.reports.contract import (
    Keeping,
    Received,
)
from updaterd.server.reports.tables import Manner, Origin, Place, Row

OTHER = "other"
_MOST_NUMBERS = 200_000
_MOST_ALIKE = 20_000
_names = attrgetter(
    *("product", "channel", "platform", "version", "seq"),
    *("outcome", "code", "trigger", "path", "tags", "updater"),
)


class NumberedNames(ABC):
    """What a kind of database has, and above it: names, and numbers instead of them.

    Args:
        keeping: how long what is kept.
    """

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._alike: dict[Row, tuple[int, int, int]] = {}
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._channels: dict[int, Row] = {}
        self._sizes: dict[tuple[str, ...], int] = {}
        self._swept_ms: int | None = None
        self._sweeps = -1

    # ---- what a kind of database has

    @abstractmethod
    def _change(self) -> AbstractContextManager[None]:
        """Return a transaction that no other writer is in.

        Raises:
            StoreDownError: it could not be begun, or not be made durable.
        """

    @abstractmethod
    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of a query, whose holes are `?`.

        Raises:
            StoreDownError: the database does not answer.
        """

    @abstractmethod
    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; return how many rows it changed."""

    @abstractmethod
    def put(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], clause: str
    ) -> None:
        """Insert rows; `clause` is what follows: `ON CONFLICT ...`."""

    @abstractmethod
    def pick(
        self, table: str, columns: str, keys: Sequence[str], values: Sequence[Row]
    ) -> Iterable[Row]:
        """Return the key and the columns of the rows that have one of these keys."""

    # ---- names and their numbers

    def _number(self, came: Received) -> tuple[int, int, int]:
        report = came.report
        names = _names(report)
        known = self._alike.get(names)  # most reports of a rollout are alike
        if known is None:
            if len(self._alike) > _MOST_ALIKE:
                self._alike.clear()
            self._alike[names] = known = self._new_number(report)
        return known

    def _new_number(self, report: Report) -> tuple[int, int, int]:
        place = Place(
            report.product, report.channel, report.platform, report.version, report.seq
        )
        manner = Manner(report.outcome, report.code, report.trigger, report.path)
        origin = Origin(" ".join(report.tags), report.updater)
        return (
            self._place(place),
            self._bounded(manner, Manner(report.outcome, OTHER, report.trigger, "")),
            self._bounded(origin, Origin("", OTHER)),
        )

    def _bounded(self, name: Manner | Origin, other: Manner | Origin) -> int:
        """Return the number of a name, or of what stands for those beyond the bound."""
        table = type(name).__name__.lower()
        if name in self._numbers or self._known(table, name):
            return self._number_of(table, name)
        if self._count(table, "") >= self._keeping.words:
            return self._number_of(table, other)
        return self._number_of(table, name)

    def _place(self, place: Place, *, before: bool = False) -> int:
        """Return the number of a place, or of what stands for those beyond the bound.

        Bounded for each channel, so that whoever invents releases of one hides nothing
        of another.

        Args:
            place: a release, where it was reported from.
            before: it is only said to have been there before; such names fill half.
        """
        if place in self._numbers or self._known("place", place):
            return self._number_of("place", place)
        channel = (place.product, place.channel)
        present = self._count("place", "product = ? AND channel = ?", *channel)
        if not present and self._count("population", "") >= self._keeping.channels:
            return self._number_of("place", Place(OTHER, OTHER, OTHER, OTHER, 0))
        if present >= self._keeping.releases // (2 if before else 1):
            return self._number_of("place", Place(*channel, OTHER, OTHER, 0))
        return self._number_of("place", place)

    def _count(self, table: str, where: str, *values: str) -> int:
        key = (table, *values)
        if key not in self._sizes:
            query = f"SELECT count(*) FROM {table}"  # noqa: S608 - our own names
            query += f" WHERE {where}" if where else ""
            self._sizes[key] = int(self.rows(query, values)[0][0])
        return self._sizes[key]

    def _runs(self, came: Received, place: int) -> int:
        """Return the place of the release that the machine runs after this."""
        report = came.report
        if report.outcome in {"installed", "current"} or report.from_version is None:
            return place
        return self._place(
            Place(
                report.product,
                report.channel,
                report.platform,
                report.from_version,
                report.from_seq or 0,
            ),
            before=True,
        )

    def _follows(self, place: int) -> Row:
        known = self._channels.get(place)
        if known is None:
            (known,) = self.rows(
                "SELECT product, channel FROM place WHERE id = ?", (place,)
            )
            self._channels[place] = known
        return known

    def _number_of(self, table: str, name: Place | Manner | Origin) -> int:
        """Return the number of a name, and make one for a new name."""
        number = self._numbers.get(name)
        if number is not None:
            return number
        if len(self._numbers) > _MOST_NUMBERS:
            self._forget()
        known = self._known(table, name)
        if not known:
            columns = ", ".join(name._fields)
            holes = ", ".join("?" * len(name))
            self.run(
                f"INSERT INTO {table} ({columns}) VALUES ({holes})",  # noqa: S608 - our own names
                name,
            )
            known = self._known(table, name)
            for key in ((table,), (table, *name[:2])):
                if key in self._sizes:
                    self._sizes[key] += 1
        self._numbers[name] = number = int(known[0][0])
        return number

    def _known(self, table: str, name: Place | Manner | Origin) -> list[Row]:
        where = " AND ".join(f"{column} = ?" for column in name._fields)
        query = f"SELECT id FROM {table} WHERE {where}"  # noqa: S608 - our own names
        return self.rows(query, name)

    def _recall(self) -> None:
        """Forget the numbers where another process has deleted some since.

        What is counted under a number that is gone is seen by nobody.
        """
        ((sweeps,),) = self.rows("SELECT n FROM sweep")
        if sweeps != self._sweeps:
            self._forget()
            self._sweeps = sweeps

    def _forget(self) -> None:
        """Forget the numbers: a transaction that made some was undone."""
        self._alike.clear()
        self._numbers.clear()
        self._channels.clear()
        self._sizes.clear()
