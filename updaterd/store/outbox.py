# SPDX-License-Identifier: Apache-2.0
"""The outbox: reports about deployments that ended, until a server has them.

A report is written in the very transaction that ends its deployment: either both are
known or neither. It is bounded by number, age and bytes; the oldest go, and the next
report tells how many. What is sent is the row's own bytes, which `updaterd reports`
shows; a few of those that were sent are kept for that.
"""

import hashlib
import hmac
import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from updaterd.core.dataclass import dataclass
from updaterd.core.lifecycle import State
from updaterd.core.report import PARTS, Moment, Report, announced_ms, elapsed
from updaterd.store.records import Deployment, Note
from updaterd.store.schema import transaction

MOST_ROWS = 1000
MOST_BYTES = 1 << 20
MOST_AGE_S = 30 * 86400.0
KEPT = 50
"""Reports that were sent or dropped, and are kept for people."""

_SECRET = "reports_secret"  # noqa: S105 - its name
_SENDING = "reports_sending"
_ALIVE_S = 86400.0
_ROW = "row, id, body, at, steady, state, reason, sent_at"
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


@dataclass(frozen=True, slots=True)
class Row:
    """One report in the outbox.

    Attributes:
        row: its place.
        id: the report's.
        body: what is sent.
        moment: when its deployment ended.
        state: waiting, sent or dropped.
        reason: why it was dropped.
        sent_at: when a server took it, Unix seconds.
    """

    row: int
    id: str
    body: bytes
    moment: Moment
    state: str
    reason: str
    sent_at: float | None


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


class Outbox:
    """Reads and empties the outbox.

    Args:
        connection: `state.db`; only reading it needs no right to write.

    Raises:
        sqlite3.Error: from any method; a writer's transaction was then undone.

    Power cut: after a method that returned, its change is durable; during one, all or
        nothing of it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def sending(self) -> Sending:
        """Return how sending goes."""
        return _sending(self._db)

    def count(self) -> int:
        """Return how many reports wait."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM outbox WHERE state = 'waiting'"
        ).fetchone()
        return int(count)

    def due_at(self) -> float | None:
        """Return when the next attempt is due, Unix seconds; None: nothing waits."""
        (oldest,) = self._db.execute(
            "SELECT min(at) FROM outbox WHERE state = 'waiting'"
        ).fetchone()
        return None if oldest is None else max(self.sending().next_at, oldest)

    def waiting(self, *, most: int, most_bytes: int) -> tuple[Row, ...]:
        """Return the oldest that wait, as many as go into one request."""
        rows: list[Row] = []
        size = 2
        for row in self._rows("state = 'waiting' ORDER BY row LIMIT ?", most):
            size += len(row.body) + 1
            if rows and size > most_bytes:
                break
            rows.append(row)
        return tuple(rows)

    def all(self) -> tuple[Row, ...]:
        """Return what was sent lately, was dropped, and waits: the oldest first."""
        return self._rows("? ORDER BY row", 1)

    def _rows(self, where: str, value: int) -> tuple[Row, ...]:
        rows = self._db.execute(
            f"SELECT {_ROW} FROM outbox WHERE {where}",  # noqa: S608 - our words
            (value,),
        )
        return tuple(Row(r[0], r[1], r[2], Moment(r[3], r[4]), *r[5:]) for r in rows)

    def sent(self, rows: Sequence[Row], *, now: float, next_at: float) -> None:
        """Note that a server took these."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE outbox SET state = 'sent', sent_at = ? WHERE row = ?",
                [(now, row.row) for row in rows],
            )
            _forget_old(self._db)
            state = replace(_sending(self._db), sent_at=now, next_at=next_at)
            _keep(self._db, replace(state, failures=0, code="", error=""))

    def drop(self, row: Row, *, reason: str) -> None:
        """Note that no server will ever take this one."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE outbox SET state = 'dropped', reason = ? WHERE row = ?",
                (reason, row.row),
            )
            _count_lost(self._db, 1)
            _forget_old(self._db)

    def failed(self, *, code: str, error: str, next_at: float) -> None:
        """Note that an attempt failed, and when to try again."""
        with transaction(self._db):
            state = _sending(self._db)
            state = replace(state, failures=state.failures + 1, code=code, error=error)
            _keep(self._db, replace(state, next_at=next_at))

    def forget(self) -> int:
        """Become a machine that nobody knows; return how many reports were deleted.

        The next report has another machine id, which cannot be linked to this one.
        """
        with transaction(self._db):
            count = self._db.execute("DELETE FROM outbox").rowcount
            self._db.execute(
                "DELETE FROM meta WHERE name IN (?, ?)", (_SECRET, _SENDING)
            )
        return count

    def say_alive(
        self, reporter: Reporter, product: str, channel: str, note: Note
    ) -> bool:
        """Report that the installed release is current, once a day at most."""
        if not (last := self._installed(product)):
            return False
        version, seq, repository, trigger = last
        name = f"reports_alive:{product}"
        row = self._db.execute(
            "SELECT value FROM meta WHERE name = ?", (name,)
        ).fetchone()
        if row is not None and 0 <= note.now - float(row[0]) < _ALIVE_S:
            return False
        with transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
                (name, str(note.now)),
            )
            members = {
                "product": product,
                "channel": channel,
                "outcome": "current",
                "version": version,
                "seq": seq,
                "trigger": trigger,
            }
            _insert(self._db, reporter, repository, members, note, product)
        return True

    def _installed(self, product: str) -> tuple[str, int, str, str] | None:
        row = self._db.execute(
            "SELECT version, seq, repository FROM installed "
            "JOIN product ON name = product WHERE product = ? AND repository <> ''",
            (product,),
        ).fetchone()
        return None if row is None else (*row, "poll")


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
    _insert(db, reporter, repository, members, note, deployment.product)


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


def _insert(  # noqa: PLR0913, PLR0917 - one row
    db: sqlite3.Connection,
    reporter: Reporter,
    repository: str,
    members: Mapping[str, object],
    note: Note,
    product: str,
) -> None:
    _make_room(db, now=note.now)
    state = _sending(db)
    ident = secrets.token_hex(16)
    report = Report(
        id="-".join((
            *(ident[:8], ident[8:12], f"4{ident[13:16]}"),
            *(f"8{ident[17:20]}", ident[20:]),
        )),
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
        _keep(db, replace(state, lost=0))


def machine_in(db: sqlite3.Connection, repository: str) -> str:
    """Return this machine's id in a repository; a secret is drawn where none is.

    Random, so that it cannot be found from anything else that is known about the
    machine, and keyed by the repository, so that two of them cannot compare.
    """
    db.execute(
        "INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)",
        (_SECRET, secrets.token_hex(32)),
    )
    (secret,) = db.execute(
        "SELECT value FROM meta WHERE name = ?", (_SECRET,)
    ).fetchone()
    key = bytes.fromhex(secret)
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
        _count_lost(db, count)


def _count_lost(db: sqlite3.Connection, count: int) -> None:
    state = _sending(db)
    _keep(
        db,
        replace(state, lost=state.lost + count, lost_ever=state.lost_ever + count),
    )


def _forget_old(db: sqlite3.Connection) -> None:
    db.execute(
        "DELETE FROM outbox WHERE state <> 'waiting' AND row NOT IN ("
        "SELECT row FROM outbox WHERE state <> 'waiting' ORDER BY row DESC LIMIT ?)",
        (KEPT,),
    )


def _sending(db: sqlite3.Connection) -> Sending:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (_SENDING,)).fetchone()
    return Sending() if row is None else Sending(**json.loads(row[0]))


def _keep(db: sqlite3.Connection, state: Sending) -> None:
    members = {name: getattr(state, name) for name in Sending.__slots__}
    db.execute(
        "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
        (_SENDING, json.dumps(members)),
    )
