# SPDX-License-Identifier: Apache-2.0
"""The journal: what is done to each product, what is installed, what is known bad.

Written by the worker, one short transaction a step, *before* the step touches the
disk. The order of states is `core/lifecycle`'s; a move that its table does not have
is refused. Reading is in `store/records.py`. Times are Unix seconds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from updaterd.core import lifecycle, words
from updaterd.core.lifecycle import State
from updaterd.core.words import Speakers, Word
from updaterd.store import blobs
from updaterd.store.records import (
    Deployment,
    Failed,
    Installed,
    ProductFacts,
    Records,
    Release,
    RoleSeen,
    Transition,
)
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


@dataclass(frozen=True, slots=True)
class Note:
    """When, why, and in which boot a step is taken; `code` is stable for scripts."""

    now: float
    code: str = ""
    reason: str = ""
    boot: str = ""


class Target(Protocol):
    """A release by its two names; an offer, a release on disk, a deployment."""

    @property
    def version(self) -> str:
        """Return the label."""

    @property
    def seq(self) -> int:
        """Return the place in the order."""


class Journal(Records):
    """Writes the journal's tables, and reads them.

    Raises:
        sqlite3.Error: from any method; a writer's transaction was then undone.

    Power cut: after a method that returned, its change is durable (schema.py opens
        the database with `synchronous = FULL`); during one, all or nothing of it.
    """

    def begin(
        self, product: str, channel: str, target: Target, trigger: str, note: Note
    ) -> int:
        """Open a deployment in QUEUED and return its number.

        Raises:
            sqlite3.IntegrityError: the product has an open one already.
        """
        old = self.installed(product)
        with transaction(self._db):
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

    def stage(self, ident: int, manifest: bytes, tree: str, note: Note) -> None:
        """Journal STAGED and that the release's tree is whole on disk."""
        row = self.deployment(ident)
        with transaction(self._db):
            self._remember(row.product, Release(row.version, row.seq, tree), manifest)
            self._move(ident, State.STAGED, note, {})

    def order_back(
        self, ident: int, manifest: bytes, tree: str, left: Target, note: Note
    ) -> None:
        """Journal that a person wants a release back that is whole on disk.

        STAGED and the block on what is left are one step: an order that was
        journalled is carried out, also by the next start.

        Args:
            ident: its deployment, in QUEUED.
            manifest: the release's listing, if it is known.
            tree: the id of its tree.
            left: the release that runs.
            note: when and why.
        """
        row = self.deployment(ident)
        with transaction(self._db):
            self._remember(row.product, Release(row.version, row.seq, tree), manifest)
            self._block(row.product, left.version, left.seq, note)
            self._move(ident, State.PLANNED, note, {})
            self._move(ident, State.STAGED, note, {})

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
            claimed = self._db.execute(
                "SELECT role, root_version, version, keys, floor, 0.0 AS time, "
                "repository FROM claim WHERE deployment = ?",
                (ident,),
            ).fetchone()
            if claimed is not None:
                *values, repository = claimed
                word = Word(
                    role=values[0],
                    root_version=values[1],
                    version=values[2],
                    keys=frozenset(values[3].split()),
                    floor=values[4],
                )
                self._hear(row.product, word, repository)
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
            "INSERT INTO transition (deployment, state, at, code, reason) "
            "VALUES (?,?,?,?,?)",
            (ident, state, note.now, note.code, note.reason),
        )

    # -- what is installed and on disk

    def record_installed(
        self, product: str, release: Release, manifest: bytes, *, now: float
    ) -> None:
        """Take over what was found on disk (recovery, adoption)."""
        with transaction(self._db):
            self._remember(product, release, manifest)
            self._set_installed(product, release, now)

    def remember_release(self, product: str, release: Release, manifest: bytes) -> None:
        """Record a release whose whole tree is on disk."""
        with transaction(self._db):
            self._remember(product, release, manifest)

    def forget_release(self, product: str, version: str) -> None:
        """Record that a release is not on disk any more."""
        with transaction(self._db):
            self._db.execute(
                "DELETE FROM release WHERE product = ? AND version = ?",
                (product, version),
            )

    def forget_installed(self, product: str) -> None:
        """Record that nothing is installed."""
        with transaction(self._db):
            self._db.execute("DELETE FROM installed WHERE product = ?", (product,))

    def _remember(self, product: str, release: Release, manifest: bytes) -> None:
        row = self._db.execute(
            "INSERT OR REPLACE INTO release (product, version, seq, tree, manifest) "
            "VALUES (?,?,?,?,zeroblob(?))",
            (product, release.version, release.seq, release.tree, len(manifest)),
        ).lastrowid
        blobs.write(self._db, row or 0, manifest)

    def _set_installed(self, product: str, release: Release, now: float) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO installed "
            "(product, version, seq, tree, installed_at) VALUES (?,?,?,?,?)",
            (product, release.version, release.seq, release.tree, now),
        )

    # -- releases that failed here

    def block(self, product: str, target: Target, note: Note) -> int:
        """Record that a release failed here; return how often it did.

        Only what its note's code calls the release's own fault (`core/codes.py`) keeps
        it away: 0 for any other.
        """
        with transaction(self._db):
            return self._block(product, target.version, target.seq, note)

    def unblock(self, product: str, version: str) -> None:
        """Forget that a release failed here."""
        with transaction(self._db):
            self._db.execute(
                "DELETE FROM blocked WHERE product = ? AND version = ?",
                (product, version),
            )

    def _block(self, product: str, version: str, seq: int, note: Note) -> int:
        from updaterd.core import codes  # noqa: PLC0415 - the daemon blocks nothing

        if not codes.blocks(note.code):
            return 0
        row = self._db.execute(
            "INSERT INTO blocked (product, version, seq, code, reason, failures, "
            "blocked_at) VALUES (?1,?2,?3,?4,?5,1,?6) "
            "ON CONFLICT (product, version) DO UPDATE SET code = ?4, reason = ?5, "
            # another seq under the same label is another release
            "failures = CASE WHEN seq = ?3 THEN failures + 1 ELSE 1 END, "
            "seq = ?3, blocked_at = ?6, announced_at = NULL RETURNING failures",
            (product, version, seq, note.code, note.reason, note.now),
        ).fetchone()
        return int(row[0])

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
            self._db.execute(
                "INSERT OR IGNORE INTO product (name) VALUES (?)", (product,)
            )
            for name, value in values.items():
                self._db.execute(
                    f"UPDATE product SET {name} = ? WHERE name = ?",  # noqa: S608 - checked
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

    def follow(self, product: str, lineage: Sequence[str]) -> str:
        """Record which repository the product comes from; return its name.

        What another one said, from which it came before, is kept for its return.

        Args:
            product: whose.
            lineage: ids of the repository's roots, oldest first (View.lineage).
        """
        repository = self.repository(lineage)
        with transaction(self._db):
            self._db.executemany(
                "INSERT OR IGNORE INTO lineage (root, repository) VALUES (?, ?)",
                [(root, repository) for root in lineage],
            )
            self._db.execute(
                "INSERT INTO product (name, repository) VALUES (?1, ?2) "
                "ON CONFLICT (name) DO UPDATE SET repository = ?2",
                (product, repository),
            )
            # what is known without a repository was said by this one
            self._db.execute(
                "UPDATE OR REPLACE word SET repository = ? "
                "WHERE repository = '' AND product = ?",
                (repository, product),
            )
        return repository

    def hear(
        self,
        product: str,
        heard: Iterable[Word],
        speakers: Mapping[str, Speakers],
        *,
        repository: str,
        root_version: int,
    ) -> None:
        """Keep what a repository says, and forget what no longer counts of it.

        Args:
            product: whose; words of `root`, `targets` and `timestamp` are everybody's.
            heard: the words at hand.
            speakers: who may speak for each role now.
            repository: its name (`follow`).
            root_version: of the root that is trusted now.
        """
        with transaction(self._db):
            self._db.execute(
                "UPDATE word SET root_version = ? WHERE repository = ? "
                "AND product = ? AND keys = '' AND root_version = 0",
                (root_version, repository, product),
            )
            known = self.words(product, repository=repository)
            standing = words.standing(known, speakers, root_version=root_version)
            for word in set(known) - set(standing):
                self._db.execute(
                    "DELETE FROM word WHERE repository = ? AND product IN ('', ?) "
                    "AND role = ? AND keys = ?",
                    (repository, product, word.role, _keys(word)),
                )
            for word in heard:
                self._hear(product, word, repository)

    def hear_from_disk(self, product: str, floor: int) -> None:
        """Keep the floor of a release found on the disk: nobody knows who said it."""
        word = Word(
            role=f"{product}.releases",
            root_version=0,
            version=0,
            keys=frozenset(),
            floor=floor,
        )
        with transaction(self._db):
            self._hear(product, word, self.product(product).repository)

    def claim(self, ident: int, word: Word) -> None:
        """Keep what a release will have said when the deployment is INSTALLED."""
        repository = self.product(self.deployment(ident).product).repository
        with transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO claim (deployment, repository, role, keys, "
                "root_version, version, floor) VALUES (?,?,?,?,?,?,?)",
                (
                    ident,
                    repository,
                    word.role,
                    _keys(word),
                    word.root_version,
                    word.version,
                    word.floor,
                ),
            )

    def _hear(self, product: str, word: Word, repository: str) -> None:
        self._db.execute(
            "INSERT INTO word (repository, product, role, keys, root_version, version, "
            "floor, time) VALUES (?1,?2,?3,?4,?5,?6,?7,?8) "
            "ON CONFLICT (repository, product, role, keys) DO UPDATE SET "
            "floor = max(floor, ?7), "
            "time = iif((root_version, version) <= (?5, ?6), ?8, time), "
            "version = iif((root_version, version) <= (?5, ?6), ?6, version), "
            "root_version = max(root_version, ?5)",
            (
                repository,
                "" if word.role in words.EVERYBODYS else product,
                word.role,
                _keys(word),
                word.root_version,
                word.version,
                word.floor,
                word.time,
            ),
        )

    def hold(self, product: str, *, until: float = math.inf, reason: str = "") -> None:
        """Install nothing until `until`; infinity for a hold without end."""
        self.remember(product, hold_until=until, hold_reason=reason)

    def unhold(self, product: str) -> None:
        """End a hold."""
        self.remember(product, hold_until=None, hold_reason="")

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


def _keys(word: Word) -> str:
    return " ".join(sorted(word.keys))
