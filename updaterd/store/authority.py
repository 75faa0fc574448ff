# SPDX-License-Identifier: Apache-2.0
"""What was signed, with who signed it: numbers that no later answer may go behind."""

from collections.abc import Iterable, Mapping, Sequence

from updaterd.core import layout, words
from updaterd.core.words import Speakers, Word
from updaterd.store.records import Records
from updaterd.store.schema import transaction


class Authority(Records):
    """Writes the tables `word`, `claim` and `lineage`, and reads the journal's.

    Raises:
        sqlite3.Error: from any method; a writer's transaction was then undone.

    Power cut: as `journal.Journal`.
    """

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
            role=layout.releases_role(product),
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

    def _hear_claim(self, ident: int, product: str) -> None:
        """Let what a deployment's release says begin to count."""
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
            self._hear(product, word, repository)


def _keys(word: Word) -> str:
    return " ".join(sorted(word.keys))
