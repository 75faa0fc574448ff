# SPDX-License-Identifier: Apache-2.0
"""What reports come to, in SQL that SQLite and PostgreSQL both have.

Names that repeat have a number (`place`, `manner`, `origin`), so that a report is a row
of a hundred bytes. Counts are kept with each report's own transaction, as differences:
a page costs the same with a thousand machines and with a million.

    report      what came, once each, for a while
    machine     what each machine runs, by its last word
    verdict     how each release ended on each machine, last
    adoption    machines by what they run; outcome: machines by verdict; tally: reports
                an hour; latency: how long it took, once for each machine and release
"""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from updaterd.server.reports.contract import (
    CLOCK,
    Histogram,
    Hour,
    Keeping,
    Population,
    Received,
    ReleaseCounts,
    bucket_of,
)

LAYOUT = 1
HOUR_MS = 3_600_000
OTHER = "other"
_MOST_NUMBERS = 200_000

Row = tuple[Any, ...]

TABLES = """
CREATE TABLE place (
    id {serial}, product TEXT NOT NULL, channel TEXT NOT NULL, platform TEXT NOT NULL,
    version TEXT NOT NULL, seq BIGINT NOT NULL,
    UNIQUE (product, channel, seq, version, platform)
);
CREATE TABLE manner (
    id {serial}, outcome TEXT NOT NULL, code TEXT NOT NULL, started TEXT NOT NULL,
    path TEXT NOT NULL, UNIQUE (outcome, code, started, path)
);
CREATE TABLE origin (
    id {serial}, tags TEXT NOT NULL, updater TEXT NOT NULL, UNIQUE (tags, updater)
);
CREATE TABLE report (
    id {bytes} PRIMARY KEY, at_ms BIGINT NOT NULL, machine {bytes} NOT NULL,
    place INTEGER NOT NULL, manner INTEGER NOT NULL, origin INTEGER NOT NULL,
    from_seq BIGINT, total_ms BIGINT, ended_ms BIGINT
){rowid};
CREATE INDEX report_at ON report (at_ms);
CREATE TABLE machine (
    product TEXT NOT NULL, machine {bytes} NOT NULL, place INTEGER NOT NULL,
    origin INTEGER NOT NULL, at_ms BIGINT NOT NULL, PRIMARY KEY (product, machine)
){rowid};
CREATE TABLE verdict (
    place INTEGER NOT NULL, machine {bytes} NOT NULL, manner INTEGER NOT NULL,
    at_ms BIGINT NOT NULL, PRIMARY KEY (place, machine)
){rowid};
CREATE TABLE population (
    product TEXT NOT NULL, channel TEXT NOT NULL, n BIGINT NOT NULL,
    PRIMARY KEY (product, channel)
);
CREATE TABLE adoption (
    place INTEGER NOT NULL, origin INTEGER NOT NULL, n BIGINT NOT NULL,
    PRIMARY KEY (place, origin)
);
CREATE TABLE outcome (
    place INTEGER NOT NULL, manner INTEGER NOT NULL, n BIGINT NOT NULL,
    PRIMARY KEY (place, manner)
);
CREATE TABLE tally (
    place INTEGER NOT NULL, hour BIGINT NOT NULL, manner INTEGER NOT NULL,
    n BIGINT NOT NULL, bytes_fetched BIGINT NOT NULL, bytes_full BIGINT NOT NULL,
    lost BIGINT NOT NULL, PRIMARY KEY (place, hour, manner)
);
CREATE TABLE latency (
    place INTEGER NOT NULL, started TEXT NOT NULL, part INTEGER NOT NULL,
    bucket INTEGER NOT NULL, n BIGINT NOT NULL,
    PRIMARY KEY (place, started, part, bucket)
)
"""

_OF_RELEASE = """
    JOIN place ON place.id = place
    WHERE product = ? AND channel = ? AND seq = ? AND version = ?
    GROUP BY """
_ADOPTION = f"""
    SELECT platform, tags, sum(n) FROM adoption JOIN origin ON origin.id = origin
    {_OF_RELEASE} platform, tags"""  # noqa: S608 - our own words
_OUTCOMES = f"""
    SELECT manner.outcome, code, sum(n) FROM outcome JOIN manner ON manner.id = manner
    {_OF_RELEASE} manner.outcome, code"""  # noqa: S608 - as above
_TALLY = f"""
    SELECT outcome, sum(n), sum(bytes_fetched), sum(bytes_full), sum(lost),
           min(hour), max(hour) FROM tally JOIN manner ON manner.id = manner
    {_OF_RELEASE} outcome"""  # noqa: S608 - as above
_LATENCY = f"""
    SELECT started, part, bucket, sum(n) FROM latency
    {_OF_RELEASE} started, part, bucket"""  # noqa: S608 - as above

# Of the columns that are written: their types in PostgreSQL, for arrays of them.
TYPES = {
    "id": "bytea",
    "machine": "bytea",
    "product": "text",
    "channel": "text",
    "started": "text",
    "place": "int",
    "manner": "int",
    "origin": "int",
    "part": "int",
    "bucket": "int",
}


class Place(NamedTuple):
    """A release where it was reported from."""

    product: str
    channel: str
    platform: str
    version: str
    seq: int


class Manner(NamedTuple):
    """How a deployment ended."""

    outcome: str
    code: str
    started: str
    path: str


class Origin(NamedTuple):
    """What kind of machine: its tags, and its updaterd."""

    tags: str
    updater: str


class CountingStore(ABC):
    """See `ReportStore`: the counting, above two kinds of SQL.

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

    # ---- writing

    def add(self, received: Sequence[Received]) -> int:
        """See `ReportStore.add`."""
        with self._change():
            fresh = self._fresh(received)
            if fresh:
                self._add(fresh)
        return len(fresh)

    def _fresh(self, received: Sequence[Received]) -> list[tuple[bytes, Received]]:
        """Return those that are not known yet, each once, with their ids."""
        by_id: dict[bytes, Received] = {}
        for came in received:
            ident = bytes.fromhex(came.report.id.replace("-", ""))
            by_id.setdefault(ident, came)
        known = {
            bytes(row[0])
            for row in self.pick("report", "", ("id",), [(ident,) for ident in by_id])
        }
        return [(ident, came) for ident, came in by_id.items() if ident not in known]

    def _add(self, fresh: Sequence[tuple[bytes, Received]]) -> None:
        rows: list[Row] = []
        tally: dict[Row, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        machines: dict[tuple[str, bytes], Row] = {}
        verdicts: dict[tuple[int, bytes], tuple[int, Received]] = {}
        for ident, came in fresh:
            report = came.report
            machine = bytes.fromhex(report.machine)
            place, manner, origin = self._number(came)
            total, ended = came.total_s, report.ended_s
            rows.append((
                *(ident, came.at_ms, machine, place, manner, origin, report.from_seq),
                None if total is None else int(total * 1000),
                None if ended is None else int(ended * 1000),
            ))
            cell = tally[place, came.at_ms // HOUR_MS * HOUR_MS, manner]
            for at, value in enumerate((
                1,
                min(report.bytes_fetched, 1 << 40),
                min(report.bytes_full, 1 << 40),
                min(report.lost, 1 << 20),
            )):
                cell[at] += value
            if report.outcome == "delta_refused":
                continue  # not an end: the update went on
            runs = self._runs(came, place)
            machines[report.product, machine] = (runs, origin, came.at_ms)
            if report.outcome != "current":
                verdicts[place, machine] = (manner, came)
        self.put(
            "report",
            ("id", "at_ms", "machine", "place", "manner", "origin", "from_seq",
             "total_ms", "ended_ms"),
            rows,
            "ON CONFLICT DO NOTHING",
        )  # fmt: skip
        self._count_machines(machines)
        self._count_verdicts(verdicts)
        self.put(
            "tally",
            ("place", "hour", "manner", "n", "bytes_fetched", "bytes_full", "lost"),
            [(*key, *cell) for key, cell in sorted(tally.items())],
            "ON CONFLICT (place, hour, manner) DO UPDATE SET n = tally.n + excluded.n, "
            "bytes_fetched = tally.bytes_fetched + excluded.bytes_fetched, "
            "bytes_full = tally.bytes_full + excluded.bytes_full, "
            "lost = tally.lost + excluded.lost",
        )

    def _count_machines(self, machines: dict[tuple[str, bytes], Row]) -> None:
        """Note what each runs, and count it there instead of where it was."""
        adoption: Counter[Row] = Counter()
        population: Counter[Row] = Counter()
        before = {
            (row[0], bytes(row[1])): row[2:]
            for row in self.pick(
                *("machine", "place, origin", ("product", "machine")), list(machines)
            )
        }
        for key, (place, origin, _) in machines.items():
            adoption[place, origin] += 1
            population[self._follows(place)] += 1
            if key in before:
                adoption[before[key]] -= 1
                population[self._follows(before[key][0])] -= 1
        self.put(
            "machine",
            ("product", "machine", "place", "origin", "at_ms"),
            [(*key, *value) for key, value in sorted(machines.items())],
            "ON CONFLICT (product, machine) DO UPDATE SET place = excluded.place, "
            "origin = excluded.origin, at_ms = excluded.at_ms",
        )
        self._add_up("adoption", ("place", "origin"), adoption)
        self._add_up("population", ("product", "channel"), population)

    def _count_verdicts(
        self, verdicts: dict[tuple[int, bytes], tuple[int, Received]]
    ) -> None:
        """Note how it ended, count it there, and how long it took the first time."""
        outcome: Counter[Row] = Counter()
        latency: Counter[Row] = Counter()
        before = {
            (row[0], bytes(row[1])): row[2]
            for row in self.pick(
                "verdict", "manner", ("place", "machine"), list(verdicts)
            )
        }
        for key, (manner, came) in verdicts.items():
            outcome[key[0], manner] += 1
            if key in before:
                outcome[key[0], before[key]] -= 1
            elif came.report.outcome == "installed":
                for part, seconds in came.clock().items():
                    latency[
                        key[0], came.report.trigger, CLOCK.index(part),
                        bucket_of(seconds),
                    ] += 1  # fmt: skip
        self.put(
            "verdict",
            ("place", "machine", "manner", "at_ms"),
            [(*key, manner, r.at_ms) for key, (manner, r) in sorted(verdicts.items())],
            "ON CONFLICT (place, machine) DO UPDATE SET manner = excluded.manner, "
            "at_ms = excluded.at_ms",
        )
        self._add_up("outcome", ("place", "manner"), outcome)
        self._add_up("latency", ("place", "started", "part", "bucket"), latency)

    def _add_up(self, table: str, key: Sequence[str], counts: Counter[Row]) -> None:
        self.put(
            table,
            (*key, "n"),
            [(*cell, n) for cell, n in sorted(counts.items()) if n],
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET n = {table}.n + excluded.n",
        )

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

    # ---- reading

    def populations(self) -> Sequence[Population]:
        """See `ReportStore.populations`."""
        rows = self.rows(
            "SELECT product, channel, n FROM population WHERE n > 0 "
            "ORDER BY product, channel"
        )
        return tuple(Population(*row) for row in rows)

    def releases(
        self, product: str, channel: str, *, before_seq: int | None, limit: int
    ) -> Sequence[ReleaseCounts]:
        """See `ReportStore.releases`."""
        below = (1 << 62) if before_seq is None else before_seq
        releases = self.rows(
            "SELECT DISTINCT seq, version FROM place WHERE product = ? "
            "AND channel = ? AND seq < ? ORDER BY seq DESC, version DESC LIMIT ?",
            (product, channel, below, limit),
        )
        return tuple(
            self._counts(product, channel, version, seq) for seq, version in releases
        )

    def release(self, product: str, channel: str, version: str) -> ReleaseCounts | None:
        """See `ReportStore.release`."""
        rows = self.rows(
            "SELECT max(seq) FROM place WHERE product = ? AND channel = ? "
            "AND version = ?",
            (product, channel, version),
        )
        if rows[0][0] is None:
            return None
        return self._counts(product, channel, version, rows[0][0])

    def _counts(
        self, product: str, channel: str, version: str, seq: int
    ) -> ReleaseCounts:
        counts = ReleaseCounts(version=version, seq=seq)
        key = (product, channel, seq, version)
        for platform, tags, n in self.rows(_ADOPTION, key):
            counts.running += int(n)
            _count(counts.platforms, platform, int(n))
            for tag in tags.split():
                _count(counts.tags, tag, int(n))
        for outcome, code, n in self.rows(_OUTCOMES, key):
            _count(counts.outcomes, outcome, int(n))
            _count(counts.codes, (outcome, code), int(n))
        for outcome, n, fetched, full, lost, first, last in self.rows(_TALLY, key):
            _count(counts.reports, outcome, int(n))
            counts.bytes_fetched += int(fetched)
            counts.bytes_full += int(full)
            counts.lost += int(lost)
            counts.first_ms = min(counts.first_ms or first, first)
            counts.last_ms = max(counts.last_ms, last)
        for started, part, bucket, n in self.rows(_LATENCY, key):
            name = (started, CLOCK[part])
            histogram = counts.clock.setdefault(name, Histogram())
            histogram.counts[bucket] += int(n)
        return counts

    def hours(self, product: str, channel: str, version: str) -> Sequence[Hour]:
        """See `ReportStore.hours`."""
        rows = self.rows(
            "SELECT hour, outcome, sum(n) FROM tally "
            "JOIN manner ON manner.id = manner JOIN place ON place.id = place "
            "WHERE product = ? AND channel = ? AND version = ? "
            "GROUP BY hour, outcome ORDER BY hour DESC, outcome LIMIT 2000",
            (product, channel, version),
        )
        return tuple(Hour(int(hour), name, int(n)) for hour, name, n in rows)

    def newest(self, limit: int) -> Iterator[tuple[str, str, ReleaseCounts]]:
        """See `ReportStore.newest`."""
        for releases in self.populations()[:200]:
            for counts in self.releases(
                releases.product, releases.channel, before_seq=None, limit=limit
            ):
                yield releases.product, releases.channel, counts

    # ---- what is old

    def trim(self, now_ms: int) -> int:
        """See `ReportStore.trim`."""
        keep = self._keeping
        with self._change():
            self.run(
                "DELETE FROM tally WHERE hour < ?", (now_ms - int(keep.hours_s * 1000),)
            )
            self._leave(now_ms - int(keep.machines_s * 1000))
            self.run(
                "DELETE FROM verdict WHERE at_ms < ?",
                (now_ms - int(keep.hours_s * 1000),),
            )
            return self.run(
                "DELETE FROM report WHERE at_ms < ?",
                (now_ms - int(keep.reports_s * 1000),),
            )

    def _leave(self, before_ms: int) -> None:
        """Count no longer the machines that have not been heard of since."""
        adoption: Counter[Row] = Counter()
        population: Counter[Row] = Counter()
        for place, origin, n in self.rows(
            "SELECT place, origin, count(*) FROM machine WHERE at_ms < ? "
            "GROUP BY place, origin",
            (before_ms,),
        ):
            adoption[place, origin] -= int(n)
            population[self._follows(place)] -= int(n)
        self.run("DELETE FROM machine WHERE at_ms < ?", (before_ms,))
        self._add_up("adoption", ("place", "origin"), adoption)
        self._add_up("population", ("product", "channel"), population)


def _count(into: dict[Any, int], key: Any, n: int) -> None:
    if n:
        into[key] = into.get(key, 0) + n
