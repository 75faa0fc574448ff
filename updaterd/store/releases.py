# SPDX-License-Identifier: Apache-2.0
"""Which releases are on disk, which one is installed, and which ones failed here."""

from updaterd.store.records import Note, Records, Release, Target
from updaterd.store.schema import transaction


class Releases(Records):
    """Writes the tables `release`, `installed` and `blocked`, and reads the journal's.

    Raises:
        sqlite3.Error: from any method; a writer's transaction was then undone.

    Power cut: as `journal.Journal`.
    """

    # -- what is installed and on disk

    def record_installed(
        self, product: str, release: Release, sha256: str, *, now: float
    ) -> None:
        """Take over what was found on disk (recovery, adoption).

        Args:
            product: whose it is.
            release: what it is.
            sha256: of the manifest that is kept beside it; empty: none is known.
            now: Unix seconds.
        """
        with transaction(self._db):
            self._remember(product, release, sha256)
            self._set_installed(product, release, now)

    def remember_release(self, product: str, release: Release, sha256: str) -> None:
        """Record a release whose whole tree is on disk; see `record_installed`."""
        with transaction(self._db):
            self._remember(product, release, sha256)

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

    def _remember(self, product: str, release: Release, sha256: str) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO release "
            "(product, version, seq, tree, manifest, sha256) VALUES (?,?,?,?,x'',?)",
            (product, release.version, release.seq, release.tree, sha256),
        )

    def _set_installed(self, product: str, release: Release, now: float) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO installed "
            "(product, version, seq, tree, installed_at) VALUES (?,?,?,?,?)",
            (product, release.version, release.seq, release.tree, now),
        )

    # -- releases that failed here

    def block(self, product: str, target: Target, note: Note) -> int:
        """Record that a release failed here; return how often it did.

        Only what its note's code calls the release's own fault (`core/codes/`) keeps
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
