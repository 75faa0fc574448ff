# SPDX-License-Identifier: Apache-2.0
"""A database of reports, and the numbers of names that repeat in it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from updaterd.server.reports.contract import (
    Keeping,
    Received,
)
from updaterd.server.reports.tables import Manner, Origin, Place, Row

OTHER = "other"
_MOST_NUMBERS = 200_000


class NumberedNames(ABC):
    """What a kind of database has, and above it: names, and numbers instead of them.

    Args:
        keeping: how long what is kept.
    """

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._channels: dict[int, Row] = {}
        self._places: int | None = None

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
        place = Place(
            report.product, report.channel, report.platform, report.version, report.seq
        )
        manner = Manner(report.outcome, report.code, report.trigger, report.path)
        origin = Origin(" ".join(report.tags), report.updater)
        return (
            self._place(place),
            self._number_of("manner", manner),
            self._number_of("origin", origin),
        )

    def _place(self, place: Place) -> int:
        number = self._numbers.get(place)
        if number is not None:
            return number
        if self._places is None:
            self._places = int(self.rows("SELECT count(*) FROM place")[0][0])
        if self._places < self._keeping.releases or self._known("place", place):
            return self._number_of("place", place)
        return self._number_of("place", Place(OTHER, OTHER, OTHER, OTHER, 0))

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
            )
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
            if table == "place" and self._places is not None:
                self._places += 1
        self._numbers[name] = number = int(known[0][0])
        return number

    def _known(self, table: str, name: Place | Manner | Origin) -> list[Row]:
        where = " AND ".join(f"{column} = ?" for column in name._fields)
        query = f"SELECT id FROM {table} WHERE {where}"  # noqa: S608 - our own names
        return self.rows(query, name)

    def _forget(self) -> None:
        """Forget the numbers: a transaction that made some was undone."""
        self._numbers.clear()
        self._channels.clear()
        self._places = None
