# SPDX-License-Identifier: Apache-2.0
"""Reports, written into the outbox as their deployments end.

A report is written in the very transaction that ends its deployment: either both are
known or neither. Of those that wait, the oldest go when they are too many, too old or
too large together, and the next report tells how many.
"""

import hashlib
import hmac
import json
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from updaterd.core.dataclass import dataclass
from updaterd.core.lifecycle import State
from updaterd.core.report import PARTS, Moment, Report, announced_ms, elapsed
from updaterd.store.records import Deployment, Note

MOST_ROWS = 1000
MOST_BYTES = 1 << 20
MOST_AGE_S = 30 * 86400.0

SECRET = "reports_secret"  # noqa: S105 - its name
SENDING = "reports_sending"
_OUTCOMES = {
    State.INSTALLED: "installed",
    State.ROLLED_BACK: "rolled_back",
    State.REJECTED: "rejected",
    State.FAILED: "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """What every report of this machine says.

    Attributes:
        platform: as publishers name it.
        updater: version of updaterd.
        tags: the owner's words.
    """

    platform: str
    updater: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How sending goes.

    Attributes:
        next_at: not before, Unix seconds.
        failures: in a row.
        code: of the last failure; "" when the last attempt went well.
        error: the same for a person.
        sent_at: when a server last took a report.
        lost: reports that were dropped since the last one was made.
        lost_ever: all of them.
    """

    next_at: float = 0.0
    failures: int = 0
    code: str = ""
    error: str = ""
    sent_at: float | None = None
    lost: int = 0
    lost_ever: int = 0


def add(
    db: sqlite3.Connection, reporter: Reporter, ended: Deployment, note: Note
) -> None:
    """Insert the report of a deployment that ends; called inside its transaction.

    One that was given up before anything was tried (SKIPPED) is nobody's business.
    """
    outcome = _OUTCOMES.get(ended.state)
    if outcome is not None:
        _add(db, reporter, ended, note, outcome)


def refuse_delta(
    db: sqlite3.Connection, reporter: Reporter, trying: Deployment, note: Note
) -> None:
    """Insert the report that a path of deltas did not work; the update goes on."""
    if _path(trying) not in {"", "full"}:
        _add(db, reporter, trying, note, "delta_refused")


def _add(
    db: sqlite3.Connection,
    reporter: Reporter,
    deployment: Deployment,
    note: Note,
    outcome: str,
) -> None:
    (repository,) = db.execute(
        "SELECT coalesce(max(repository), '') FROM product WHERE name = ?",
        (deployment.product,),
    ).fetchone()
    if not repository:
        return  # nobody to whom this machine has a name
    members: dict[str, object] = {
        "product": deployment.product,
        "channel": deployment.channel,
        "outcome": outcome,
        "version": deployment.version,
        "seq": deployment.seq,
        "from_version": deployment.from_version,
        "from_seq": deployment.from_seq,
        "trigger": deployment.trigger,
        "code": note.code,
        "bytes_fetched": deployment.bytes_fetched,
        "bytes_full": deployment.bytes_full,
        "path": _path(deployment),
        **_clock(db, deployment, note),
    }
    insert(db, reporter, repository, members, note, deployment.product)


def _path(deployment: Deployment) -> str:
    """Return the kind of the path that was taken, a word."""
    try:
        kind = json.loads(deployment.path)["kind"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(kind)[:64] if str(kind).replace("_", "").isalnum() else ""


def _clock(
    db: sqlite3.Connection, deployment: Deployment, note: Note
) -> Mapping[str, object]:
    """Return when the release was announced, and how long each part took since."""
    event = db.execute(
        "SELECT event_id, received_at, steady FROM inbox WHERE product = ? "
        "AND version = ? AND event_id IS NOT NULL AND received_at <= ? "
        "ORDER BY row DESC LIMIT 1",
        (deployment.product, deployment.version, deployment.started_at),
    ).fetchone()
    if event is None or deployment.trigger == "rollback":
        return {}
    came = Moment(event[1], event[2])
    steps: dict[str, Moment] = {}
    for state, at, steady in db.execute(
        "SELECT state, at, steady FROM transition WHERE deployment = ? ORDER BY id",
        (deployment.id,),
    ):
        moment = Moment(at, steady)
        steps.setdefault(state, moment)
        if state == State.STAGING:  # the last: a delta may have failed before
            steps[state] = moment
    staged = steps.get(State.STAGED)
    moments = (
        steps.get(State.QUEUED),
        steps.get(State.STAGING, staged),
        staged,
        steps.get(State.PROBATION),
        Moment(note.now, note.steady),
    )
    clock = {
        name: elapsed(came, moment) for name, moment in zip(PARTS, moments, strict=True)
    }
    return {"event_ms": announced_ms(event[0]), **clock}


def insert(  # noqa: PLR0913, PLR0917 - one row
    db: sqlite3.Connection,
    reporter: Reporter,
    repository: str,
    members: Mapping[str, object],
    note: Note,
    product: str,
) -> None:
    """Insert a report, with what every report of this machine says."""
    import uuid  # noqa: PLC0415 - few looks end in a report

    _make_room(db, now=note.now)
    state = read_sending(db)
    report = Report(
        id=str(uuid.uuid4()),
        machine=machine_in(db, repository),
        platform=reporter.platform,
        updater=reporter.updater,
        tags=reporter.tags,
        lost=state.lost,
        **members,  # type: ignore[arg-type] # by name, from the journal's columns
    )
    db.execute(
        "INSERT INTO outbox (id, product, body, at, steady, state) "
        "VALUES (?, ?, ?, ?, ?, 'waiting')",
        (report.id, product, report.encode(), note.now, note.steady),
    )
    if state.lost:
        keep_sending(db, replace(state, lost=0))


def machine_in(db: sqlite3.Connection, repository: str) -> str:
    """Return this machine's id in a repository; a secret is drawn where none is.

    Random, so that it cannot be found from anything else that is known about the
    machine, and keyed by the repository, so that two of them cannot compare.
    """
    db.execute(
        "INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)",
        (SECRET, secrets.token_hex(32)),
    )
    (secret,) = db.execute(
        "SELECT value FROM meta WHERE name = ?", (SECRET,)
    ).fetchone()
    key = str(secret).encode()
    return hmac.new(key, repository.encode(), hashlib.sha256).hexdigest()[:32]


def _make_room(db: sqlite3.Connection, *, now: float) -> None:
    """Let the oldest go that are too many, too large together, or too old."""
    count = db.execute(
        "DELETE FROM outbox WHERE state = 'waiting' AND (at < ? OR row IN ("
        "SELECT row FROM (SELECT row, "
        "row_number() OVER (ORDER BY row DESC) AS place, "
        "sum(length(body)) OVER (ORDER BY row DESC) AS size "
        "FROM outbox WHERE state = 'waiting') WHERE place >= ? OR size > ?))",
        (now - MOST_AGE_S, MOST_ROWS, MOST_BYTES),
    ).rowcount
    if count:
        count_lost(db, count)


def count_lost(db: sqlite3.Connection, count: int) -> None:
    """Note that some are lost."""
    state = read_sending(db)
    keep_sending(
        db,
        replace(state, lost=state.lost + count, lost_ever=state.lost_ever + count),
    )


def read_sending(db: sqlite3.Connection) -> Sending:
    """Return how sending goes; anew, where what is noted cannot be read.

    A newer updaterd may have noted more. It is read in the transaction that ends a
    deployment, which must not fail for it.
    """
    row = db.execute("SELECT value FROM meta WHERE name = ?", (SENDING,)).fetchone()
    try:
        members = {} if row is None else dict(json.loads(row[0]))
    except (ValueError, TypeError):
        members = {}
    known = {name: members[name] for name in Sending.__slots__ if name in members}
    return Sending(**known)


def keep_sending(db: sqlite3.Connection, state: Sending) -> None:
    """Note how sending goes."""
    members = {name: getattr(state, name) for name in Sending.__slots__}
    db.execute(
        "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
        (SENDING, json.dumps(members)),
    )
