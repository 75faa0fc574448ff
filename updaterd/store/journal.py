# SPDX-License-Identifier: Apache-2.0
"""The journal: what is done to each product, what is installed, what is known bad.

Written by the worker, one short transaction a step, *before* the step touches the
disk. The order of states is `core/lifecycle`'s; a move that its table does not have
is refused. Releases are in `store/releases.py`, signed words in `store/authority.py`,
reading is in `store/records.py`. Times are Unix seconds.
"""

import math
import sqlite3
from collections.abc import Iterable, Mapping

from updaterd.core import lifecycle
from updaterd.core.lifecycle import State
from updaterd.store import outbox, report_rows
from updaterd.store.authority import Authority
from updaterd.store.records import (
    IN_THE_WAY,
    Deployment,
    Failed,
    Installed,
    Note,
    ProductFacts,
    Release,
    RoleSeen,
    Target,
    Transition,
)
from updaterd.store.releases import Releases
from updaterd.store.schema import transaction

__all__ = [
    "Deployment",
    "Failed",
    "Installed",
    "Journal",
    "Note",
    "ProductFacts",
    "Release",
    "RoleSeen",
    "Target",
    "Transition",
]

_TOLD_S = 7 * 86400.0
_MOVABLE = frozenset({
    "path",
    "bytes_planned",
    "bytes_fetched",
    "bytes_full",
    "bytes_cached",  # of its bundles, when `bytes_fetched` was last set
})


class Journal(Releases, Authority):
    """Writes the journal's tables, and reads them.

    Args:
        connection: `state.db`.
        reporter: what reports of this machine say; None: it reports nothing.

    Raises:
        sqlite3.Error: from any method; a writer's transaction was then undone.

    Power cut: after a method that returned, its change is durable (schema.py opens
        the database with `synchronous = FULL`); during one, all or nothing of it.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        reporter: report_rows.Reporter | None = None,
    ) -> None:
        super().__init__(connection)
        self._reporter = reporter
        self.outbox = outbox.Outbox(connection)

    def say_alive(self, product: str, channel: str, note: Note) -> None:
        """Report that the installed release is current, once a day at most."""
        if self._reporter is not None:
            self.outbox.say_alive(self._reporter, product, channel, note)

    def begin(
        self, product: str, channel: str, target: Target, trigger: str, note: Note
    ) -> int:
        """Open a deployment in QUEUED and return its number.

        Raises:
            sqlite3.IntegrityError: the product has an open one already.
        """
        with transaction(self._db):
            return self._begin(product, channel, target, trigger, note)

    def _begin(
        self, product: str, channel: str, target: Target, trigger: str, note: Note
    ) -> int:
        old = self.installed(product)
        row = self._db.execute(
            "INSERT INTO deployment (product, channel, version, seq, from_version, "
            "from_seq, trigger, state, code, reason, boot, started_at, updated_at) "
            "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING id",
            (
                product,
                channel,
                target.version,
                target.seq,
                old.version if old else None,
                old.seq if old else None,
                trigger,
                State.QUEUED,
                note.code,
                note.reason,
                note.boot,
                note.now,
                note.now,
            ),
        ).fetchone()
        ident = int(row[0])
        self._step(ident, State.QUEUED, note)
        return ident

    def move(self, ident: int, state: State, note: Note, **values: int | str) -> None:
        """Journal a transition; an end closes the deployment.

        Args:
            ident: the deployment.
            state: where it goes.
            note: when and why.
            values: `path`, `bytes_planned`, `bytes_fetched`, `bytes_full` to set.

        Raises:
            ValueError: the table of transitions does not have this one.
        """
        with transaction(self._db):
            self._move(ident, state, note, values)

    def progress(self, ident: int, **values: int | str) -> None:
        """Set figures of an open deployment without a transition."""
        with transaction(self._db):
            self._set(ident, values)

    def stage(self, ident: int, sha256: str, tree: str, note: Note) -> None:
        """Journal STAGED and that the release's tree is whole on disk.

        Args:
            ident: the deployment.
            sha256: of the manifest that is kept beside the release.
            tree: the id of its tree.
            note: when and why.
        """
        row = self.deployment(ident)
        with transaction(self._db):
            self._remember(row.product, Release(row.version, row.seq, tree), sha256)
            self._move(ident, State.STAGED, note, {})

    def order_back(
        self, ident: int, sha256: str, tree: str, leaving: Target, note: Note
    ) -> None:
        """Journal that a person wants a release back that is whole on disk.

        STAGED and the block on what is left are one step: an order that was
        journalled is carried out, also by the next start.

        Args:
            ident: its deployment, in QUEUED.
            sha256: of the manifest that is kept beside the release; empty: of none.
            tree: the id of its tree.
            leaving: the release that runs.
            note: when and why.
        """
        row = self.deployment(ident)
        with transaction(self._db):
            self._remember(row.product, Release(row.version, row.seq, tree), sha256)
            self._block(row.product, leaving.version, leaving.seq, note)
            self._move(ident, State.PLANNED, note, {})
            self._move(ident, State.STAGED, note, {})

    def order_removal(  # noqa: PLR0913 - as `begin`
        self,
        product: str,
        channel: str,
        target: Target,
        trigger: str,
        note: Note,
        *,
        hold: str,
    ) -> int:
        """Journal that a person wants a product gone; return the order's number.

        What was under way is ended, and a hold without end begins, in the same step:
        who sees the order cannot begin anything else, and who sees its end neither.
        """
        with transaction(self._db):
            row = self.open_deployment(product)
            if row is not None:
                for state in lifecycle.way_out(row.state):
                    self._move(row.id, state, note, {})
            self._set_facts(product, hold_until=math.inf, hold_reason=hold, hold_at="")
            return self._begin(product, channel, target, trigger, note)

    def end_removal(self, ident: int, note: Note) -> None:
        """Journal that nothing of a product is on this machine any more.

        What its publisher signed is remembered (floors, the newest word): whoever
        installs it again must not be led further back than before.
        """
        product = self.deployment(ident).product
        with transaction(self._db):
            for table in ("installed", "release", "blocked"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE product = ?",  # noqa: S608 - three names
                    (product,),
                )
            self._db.execute(
                "DELETE FROM meta WHERE name = ?", (f"{IN_THE_WAY}{product}",)
            )
            self._set_facts(product, decision=note.code, decision_reason=note.reason)
            self._move(ident, State.SKIPPED, note, {})

    def install(self, ident: int, tree: str, note: Note) -> None:
        """Journal INSTALLED, the new installed release, and that it is not bad.

        In the same transaction its signed floor begins to count (`claim`).
        The first one a week or more after a database was set aside ends telling of
        that: whoever missed a hold has had time to find out why.
        """
        row = self.deployment(ident)
        with transaction(self._db):
            self._set_installed(
                row.product, Release(row.version, row.seq, tree), note.now
            )
            self._db.execute(
                "DELETE FROM blocked WHERE product = ? AND version = ?",
                (row.product, row.version),
            )
            self._hear_claim(ident, row.product)
            self._db.execute(
                "DELETE FROM meta WHERE name = 'set_aside' AND NOT EXISTS (SELECT 1 "
                "FROM meta WHERE name = 'set_aside_at' "
                "AND abs(CAST(value AS REAL) - ?) < ?)",
                (note.now, _TOLD_S),
            )
            self._move(ident, State.INSTALLED, note, {})

    def condemn(self, ident: int, note: Note) -> int:
        """Journal ROLLING_BACK and block the release; return its failures so far."""
        row = self.deployment(ident)
        with transaction(self._db):
            failures = self._block(row.product, row.version, row.seq, note)
            self._move(ident, State.ROLLING_BACK, note, {})
        return failures

    def _move(
        self, ident: int, state: State, note: Note, values: Mapping[str, int | str]
    ) -> None:
        lifecycle.check(self.deployment(ident).state, state)
        self._set(ident, values)
        ended_at = note.now if state in lifecycle.ENDS else None
        self._db.execute(
            "UPDATE deployment SET state = ?, code = ?, reason = ?, boot = ?, "
            "updated_at = ?, ended_at = ? WHERE id = ?",
            (state, note.code, note.reason, note.boot, note.now, ended_at, ident),
        )
        self._step(ident, state, note)
        if self._reporter is not None:
            if state in lifecycle.ENDS:
                row = self.deployment(ident)
                report_rows.add(self._db, self._reporter, row, note)
            elif state is State.FETCHING and note.code:  # a path that did not work
                row = self.deployment(ident)
                report_rows.refuse_delta(self._db, self._reporter, row, note)

    def _set(self, ident: int, values: Mapping[str, int | str]) -> None:
        for name, value in values.items():
            if name not in _MOVABLE:
                raise ValueError(name)
            self._db.execute(
                f"UPDATE deployment SET {name} = ? WHERE id = ?",  # noqa: S608 - checked
                (value, ident),
            )

    def _step(self, ident: int, state: State, note: Note) -> None:
        self._db.execute(
            "INSERT INTO transition (deployment, state, at, code, reason, steady) "
            "VALUES (?,?,?,?,?,?)",
            (ident, state, note.now, note.code, note.reason, note.steady),
        )

    # -- what is remembered about a product

    def remember(self, product: str, **values: float | str | None) -> None:
        """Set columns of the product's row (`ProductFacts`), making it if needed.

        Raises:
            ValueError: a name that is not one of its columns.
        """
        unknown = set(values) - set(ProductFacts.__slots__) | ({"name"} & set(values))
        if unknown:
            raise ValueError(f"no such columns: {sorted(unknown)}")
        with transaction(self._db):
            self._set_facts(product, **values)

    def _set_facts(self, product: str, **values: float | str | None) -> None:
        self._db.execute("INSERT OR IGNORE INTO product (name) VALUES (?)", (product,))
        for name, value in values.items():
            self._db.execute(
                f"UPDATE product SET {name} = ? WHERE name = ?",  # noqa: S608 - ours
                (value, product),
            )

    def note_failure(  # noqa: PLR0913 - all by name
        self,
        product: str,
        *,
        code: str,
        reason: str,
        next_attempt_at: float | None,
        now: float,
        looked_up_to: int,
    ) -> None:
        """Record that a run ended in an error, and when to try again.

        What the feed had said by then (`looked_up_to`) needs no other look.
        """
        self.remember(
            product,
            failures=self.failures(product) + 1,
            last_error_code=code,
            last_error=reason,
            next_attempt_at=next_attempt_at,
            checked_at=now,
            looked_up_to=looked_up_to,
        )

    def hold(
        self,
        product: str,
        *,
        until: float = math.inf,
        reason: str = "",
        at: str = "",
    ) -> None:
        """Install nothing until `until`; infinity for a hold without end.

        But the release `at`, where one is named.
        """
        self.remember(product, hold_until=until, hold_reason=reason, hold_at=at)

    def unhold(self, product: str) -> None:
        """End a hold."""
        self.remember(product, hold_until=None, hold_reason="", hold_at="")

    def set_roles(self, roles: Iterable[RoleSeen]) -> None:
        """Replace the roles of the signed metadata by those just seen."""
        rows = [(role.name, role.version, role.expires_at) for role in roles]
        with transaction(self._db):
            self._db.execute("DELETE FROM role")
            self._db.executemany(
                "INSERT INTO role (name, version, expires_at) VALUES (?,?,?)", rows
            )

    def set_meta(self, name: str, value: str) -> None:
        """Keep a remark (`Records.meta`)."""
        with transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value)
            )
