# SPDX-License-Identifier: Apache-2.0
"""Tables of reports and counts, in SQL that SQLite and PostgreSQL both have.

Names that repeat have a number (`place`, `manner`, `origin`), so that a report is a row
of a hundred bytes.

    report      what came, once each, for a while
    machine     what each machine runs, by its last word
    verdict     how each release ended on each machine, last, and how long it took
    adoption    machines by what they run; outcome: machines by verdict; tally: reports
                an hour; total: reports altogether; latency: how long it took, once for
                each machine and release
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from updaterd.server.reports.contract import CLOCK

LAYOUT = 4

Row = tuple[Any, ...]

_TABLES = """
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

_CLOCK_COLUMNS = tuple(f"{part.removesuffix('_s')}_ms" for part in CLOCK)
VERDICT_COLUMNS = ("machine", "place", "manner", "at_ms", "failed", *_CLOCK_COLUMNS)

_TOTAL = """CREATE TABLE total (
    place INTEGER NOT NULL, manner INTEGER NOT NULL, n BIGINT NOT NULL,
    bytes_fetched BIGINT NOT NULL, bytes_full BIGINT NOT NULL, lost BIGINT NOT NULL,
    first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, PRIMARY KEY (place, manner)
)"""
_FAILED_INDEX = (
    "CREATE INDEX verdict_failed ON verdict (place, manner, at_ms) WHERE failed = 1"
)

# By machine first: its page is one look, and a report finds its row as fast.
_VERDICT = """CREATE TABLE verdict (
    machine {bytes} NOT NULL, place INTEGER NOT NULL, manner INTEGER NOT NULL,
    at_ms BIGINT NOT NULL, failed INTEGER NOT NULL DEFAULT 0, {clock},
    PRIMARY KEY (machine, place)
){rowid}"""
# How often numbers went: who holds some in memory, on another host, asks first.
_SWEEP = ("CREATE TABLE sweep (n BIGINT NOT NULL)", "INSERT INTO sweep VALUES (0)")
_STEPS = {
    1: (
        "ALTER TABLE verdict ADD COLUMN failed INTEGER NOT NULL DEFAULT 0",
        *(f"ALTER TABLE verdict ADD COLUMN {name} BIGINT" for name in _CLOCK_COLUMNS),
        (
            "UPDATE verdict SET failed = 1 WHERE manner IN "
            "(SELECT id FROM manner WHERE outcome <> 'installed')"
        ),
        _FAILED_INDEX,
        _TOTAL,
        (
            "INSERT INTO total SELECT place, manner, sum(n), sum(bytes_fetched), "
            "sum(bytes_full), sum(lost), min(hour), max(hour) FROM tally "
            "GROUP BY place, manner"
        ),
    ),
    2: (
        "DROP INDEX verdict_failed",
        "ALTER TABLE verdict RENAME TO verdict_2",
        _VERDICT,
        (
            f"INSERT INTO verdict ({', '.join(VERDICT_COLUMNS)}) "  # noqa: S608 - our own names
            f"SELECT {', '.join(VERDICT_COLUMNS)} FROM verdict_2 "
            "ORDER BY machine, place"
        ),
        "DROP TABLE verdict_2",
        _FAILED_INDEX,
    ),
    3: _SWEEP,
}


class Dialect(NamedTuple):
    """What a kind of database calls things.

    Attributes:
        serial: type of a number that is given out.
        blob: type of some bytes.
        rowid: what follows a table whose rows lie in the order of their key.
    """

    serial: str
    blob: str
    rowid: str

    def _fill(self, sql: str) -> str:
        clock = ", ".join(f"{name} BIGINT" for name in _CLOCK_COLUMNS)
        return sql.format(
            serial=self.serial, bytes=self.blob, rowid=self.rowid, clock=clock
        )

    def tables(self) -> Iterator[str]:
        """Return what makes the tables of a new store, statement by statement."""
        return map(
            self._fill, (*_TABLES.split(";"), _VERDICT, _FAILED_INDEX, _TOTAL, *_SWEEP)
        )

    def steps(self, layout: int) -> Iterator[str]:
        """Return what makes the present layout of an older one."""
        for number in range(layout, LAYOUT):
            yield from map(self._fill, _STEPS[number])


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
    "failed": "int",
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
