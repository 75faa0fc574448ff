# SPDX-License-Identifier: Apache-2.0
"""Tables of reports and counts, in SQL that SQLite and PostgreSQL both have.

Names that repeat have a number (`place`, `manner`, `origin`), so that a report is a row
of a hundred bytes.

    report      what came, once each, for a while
    machine     what each machine runs, by its last word
    verdict     how each release ended on each machine, last
    adoption    machines by what they run; outcome: machines by verdict; tally: reports
                an hour; latency: how long it took, once for each machine and release
"""

from typing import Any, NamedTuple

LAYOUT = 1

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
