# SPDX-License-Identifier: Apache-2.0
"""The outbox: reports about deployments that ended, until a server has them.

It is bounded by number, age and bytes (`report_rows`); what is sent is the row's own
bytes, which `updaterd reports` shows; a few of those that were sent are kept for that.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from updaterd.core.dataclass import dataclass
from updaterd.core.report import Moment, meant
from updaterd.store.records import Note
from updaterd.store.report_rows import (
    SECRET,
    SENDING,
    Reporter,
    Sending,
    count_lost,
    insert,
    keep_sending,
    read_sending,
)
from updaterd.store.schema import transaction

KEPT = 50
"""Reports that were sent or dropped, and are kept for people."""
_ALIVE_S = 86400.0
_ROW = "row, id, body, at, steady, state, reason, sent_at"


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
        return read_sending(self._db)

    def count(self) -> int:
        """Return how many reports wait."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM outbox WHERE state = 'waiting'"
        ).fetchone()
        return int(count)

    def due_at(self, now: float) -> float | None:
        """Return when the next attempt is due, Unix seconds; None: nothing waits.

        Moments that a clock which was ahead has left count as past.
        """
        (oldest,) = self._db.execute(
            "SELECT min(at) FROM outbox WHERE state = 'waiting'"
        ).fetchone()
        if oldest is None:
            return None
        return max(meant(self.sending().next_at, now), meant(oldest, now))

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
            state = replace(read_sending(self._db), sent_at=now, next_at=next_at)
            keep_sending(self._db, replace(state, failures=0, code="", error=""))

    def drop(self, row: Row, *, reason: str) -> None:
        """Note that no server will ever take this one."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE outbox SET state = 'dropped', reason = ? WHERE row = ?",
                (reason, row.row),
            )
            count_lost(self._db, 1)
            _forget_old(self._db)

    def failed(self, *, code: str, error: str, next_at: float) -> None:
        """Note that an attempt failed, and when to try again."""
        with transaction(self._db):
            state = read_sending(self._db)
            state = replace(state, failures=state.failures + 1, code=code, error=error)
            keep_sending(self._db, replace(state, next_at=next_at))

    def forget(self) -> int:
        """Become a machine that nobody knows; return how many reports were deleted.

        The next report has another machine id, which cannot be linked to this one.
        """
        with transaction(self._db):
            count = self._db.execute("DELETE FROM outbox").rowcount
            self._db.execute("DELETE FROM meta WHERE name IN (?, ?)", (SECRET, SENDING))
        return count

    def say_alive(
        self, reporter: Reporter, product: str, channel: str, note: Note
    ) -> bool:
        """Report that the installed release is current, once a day at most."""
        if not (last := self._installed(product)):
            return False
        version, seq, repository = last
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
                "trigger": "poll",
            }
            insert(self._db, reporter, repository, members, note, product)
        return True

    def _installed(self, product: str) -> tuple[str, int, str] | None:
        row: tuple[str, int, str] | None = self._db.execute(
            "SELECT version, seq, repository FROM installed "
            "JOIN product ON name = product WHERE product = ? AND repository <> ''",
            (product,),
        ).fetchone()
        return row


def _forget_old(db: sqlite3.Connection) -> None:
    db.execute(
        "DELETE FROM outbox WHERE state <> 'waiting' AND row NOT IN ("
        "SELECT row FROM outbox WHERE state <> 'waiting' ORDER BY row DESC LIMIT ?)",
        (KEPT,),
    )
