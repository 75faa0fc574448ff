# SPDX-License-Identifier: Apache-2.0
"""What the journal says: its records, and how they are read.

Works on a connection without the right to write: `status` and `history` use it
while a worker is writing. Times are Unix seconds.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from updaterd.core import words
from updaterd.core.dataclass import dataclass
from updaterd.core.lifecycle import State
from updaterd.core.words import Word
from updaterd.store import blobs


@dataclass(frozen=True, slots=True)
class Note:
    """When, why, and in which boot a step is taken; `code` is stable for scripts.

    `steady` is the same moment by the clock that nobody sets (`clocks.steady_clock`).
    """

    now: float
    code: str = ""
    reason: str = ""
    boot: str = ""
    steady: float | None = None


class Target(Protocol):
    """A release by its two names; an offer, a release on disk, a deployment."""

    @property
    def version(self) -> str:
        """Return the label."""

    @property
    def seq(self) -> int:
        """Return the place in the order."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The release that is installed: label, order, tree id, since when."""

    version: str
    seq: int
    tree: str
    installed_at: float


@dataclass(frozen=True, slots=True)
class Release:
    """A release whose whole tree is on this machine's disk."""

    version: str
    seq: int
    tree: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """One row of the journal. `ended_at` is None while it is open."""

    id: int
    product: str
    channel: str
    version: str
    seq: int
    from_version: str | None
    from_seq: int | None
    trigger: str
    state: State
    code: str
    reason: str
    path: str
    bytes_planned: int
    bytes_fetched: int
    bytes_full: int
    bytes_cached: int
    boot: str
    started_at: float
    updated_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a deployment."""

    state: State
    at: float
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A release that failed here, `failures` times, last at `blocked_at`.

    `announced_at` is when the feed named it again since.
    """

    version: str
    seq: int
    code: str
    reason: str
    failures: int
    blocked_at: float
    announced_at: float | None = None


@dataclass(frozen=True, slots=True)
class ProductFacts:
    """What is remembered about a product; the defaults are those of a new one.

    Attributes:
        hold_at: the release that the hold is at, if one was named.
        first_seen_at: when the current target was first seen.
        pending_since: since when there has been an update to install.
        looked_up_to: the newest row of the inbox when the last look began.
        postponed_until: a release that is ready is not activated before.
        apply_seq: the release that somebody asked to be activated now.
    """

    name: str
    repository: str = ""
    hold_until: float | None = None
    hold_reason: str = ""
    hold_at: str = ""
    target_version: str | None = None
    target_seq: int | None = None
    decision: str = ""
    decision_reason: str = ""
    checked_at: float | None = None
    first_seen_at: float | None = None
    pending_since: float | None = None
    looked_up_to: int = 0
    postponed_until: float | None = None
    apply_seq: int | None = None
    failures: int = 0
    next_attempt_at: float | None = None
    last_error_code: str = ""
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class RoleSeen:
    """A role of the signed metadata as last seen: version and expiry."""

    name: str
    version: int
    expires_at: float


_DEPLOYMENT = ", ".join(Deployment.__slots__)
_PRODUCT = ", ".join(ProductFacts.__slots__)


IN_THE_WAY = "in_the_way:"
"""Name in `meta`, before a product's, of what old releases could not be deleted for."""
_WORD = "role, root_version, version, keys, floor, time"


def _word(row: sqlite3.Row) -> Word:
    values = dict(row)
    values["keys"] = frozenset(values["keys"].split())
    return Word(**values)


def _deployment(row: sqlite3.Row) -> Deployment:
    values = dict(row)
    values["state"] = State(values["state"])
    return Deployment(**values)


class Records:
    """Reads the journal's tables.

    Raises:
        sqlite3.Error: from any method, when the database cannot be read.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def installed(self, product: str) -> Installed | None:
        """Return what is installed, None for nothing."""
        row = self._db.execute(
            "SELECT version, seq, tree, installed_at FROM installed WHERE product = ?",
            (product,),
        ).fetchone()
        return None if row is None else Installed(*row)

    def releases(self, product: str) -> tuple[Release, ...]:
        """Return the releases known to be whole on disk, newest first."""
        rows = self._db.execute(
            "SELECT version, seq, tree FROM release WHERE product = ? "
            "ORDER BY seq DESC, version",
            (product,),
        )
        return tuple(Release(*row) for row in rows)

    def manifest_hash(self, product: str, version: str) -> str:
        """Return the hash of the manifest that is kept beside a release, or nothing."""
        row = self._db.execute(
            "SELECT sha256 FROM release WHERE product = ? AND version = ?",
            (product, version),
        ).fetchone()
        return "" if row is None else str(row[0])

    def keeping(self, sha256: str) -> tuple[tuple[str, str], ...]:
        """Return the releases beside which a manifest is kept: product and version."""
        rows = self._db.execute(
            "SELECT product, version FROM release WHERE sha256 = ?", (sha256,)
        )
        return tuple((row[0], row[1]) for row in rows)

    def manifest_source(
        self, product: str, version: str
    ) -> tuple[Callable[[int, int], bytes], int] | None:
        """Return what reads a manifest that an older updaterd kept here; or None.

        As `core.manifest.read` takes it.
        """
        row = self._db.execute(
            "SELECT rowid, length(manifest) FROM release "
            "WHERE product = ? AND version = ? AND length(manifest) > 0",
            (product, version),
        ).fetchone()
        if row is None:
            return None
        return partial(blobs.part, self._db, row[0]), row[1]

    def open_deployment(self, product: str) -> Deployment | None:
        """Return the deployment that did not end, if there is one."""
        row = self._db.execute(
            f"SELECT {_DEPLOYMENT} FROM deployment "  # noqa: S608 - our own columns
            "WHERE product = ? AND ended_at IS NULL",
            (product,),
        ).fetchone()
        return None if row is None else _deployment(row)

    def open_deployments(self) -> tuple[Deployment, ...]:
        """Return those of all products that did not end, configured or not."""
        rows = self._db.execute(
            f"SELECT {_DEPLOYMENT} FROM deployment WHERE ended_at IS NULL"  # noqa: S608 - as above
        )
        return tuple(_deployment(row) for row in rows)

    def deployment(self, ident: int) -> Deployment:
        """Return one deployment.

        Raises:
            KeyError: there is none with this number.
        """
        row = self._db.execute(
            f"SELECT {_DEPLOYMENT} FROM deployment WHERE id = ?",  # noqa: S608 - as above
            (ident,),
        ).fetchone()
        if row is None:
            raise KeyError(ident)
        return _deployment(row)

    def history(
        self, product: str | None = None, *, limit: int = 20
    ) -> tuple[Deployment, ...]:
        """Return the last deployments, newest first, of one product or of all."""
        rows = self._db.execute(
            f"SELECT {_DEPLOYMENT} FROM deployment "  # noqa: S608 - as above
            "WHERE ?1 IS NULL OR product = ?1 ORDER BY id DESC LIMIT ?2",
            (product, limit),
        )
        return tuple(_deployment(row) for row in rows)

    def ran(self, product: str) -> tuple[str, ...]:
        """Return the releases that were installed here at some time, the last first."""
        rows = self._db.execute(
            "SELECT version, max(place) FROM ("
            "SELECT version, id AS place FROM deployment "
            "WHERE product = ?1 AND state = 'INSTALLED' UNION ALL "
            # what others installed, or a person put there, was only ever left
            "SELECT from_version, id - 0.5 FROM deployment "
            "WHERE product = ?1 AND from_version IS NOT NULL"
            ") GROUP BY version ORDER BY 2 DESC",
            (product,),
        )
        return tuple(str(row[0]) for row in rows)

    def transitions(self, ident: int) -> tuple[Transition, ...]:
        """Return the steps of one deployment, oldest first."""
        rows = self._db.execute(
            "SELECT state, at, code, reason FROM transition "
            "WHERE deployment = ? ORDER BY id",
            (ident,),
        )
        return tuple(Transition(State(row[0]), *row[1:]) for row in rows)

    def failed(self, product: str) -> dict[str, Failed]:
        """Return the releases that failed here, by version."""
        rows = self._db.execute(
            "SELECT version, seq, code, reason, failures, blocked_at, announced_at "
            "FROM blocked WHERE product = ?",
            (product,),
        )
        return {row[0]: Failed(*row) for row in rows}

    def product(self, name: str) -> ProductFacts:
        """Return what is remembered about a product, defaults if nothing is."""
        row = self._db.execute(
            f"SELECT {_PRODUCT} FROM product WHERE name = ?",  # noqa: S608 - as above
            (name,),
        ).fetchone()
        return ProductFacts(name) if row is None else ProductFacts(*row)

    def repository(self, lineage: Sequence[str]) -> str:
        """Return the name of the repository whose roots these are (View.lineage)."""
        holes = ",".join("?" * len(lineage))
        row = self._db.execute(
            f"SELECT repository FROM lineage WHERE root IN ({holes}) "  # noqa: S608 - only ?
            "ORDER BY rowid LIMIT 1",
            tuple(lineage),
        ).fetchone()
        return lineage[0] if row is None else str(row[0])

    def words(self, product: str, *, repository: str) -> tuple[Word, ...]:
        """Return what was heard of a repository and of a product in it."""
        rows = self._db.execute(
            f"SELECT {_WORD} FROM word "  # noqa: S608 - our own columns
            "WHERE repository = ? AND product IN ('', ?)",
            (repository, product),
        )
        return tuple(map(_word, rows))

    def times(self) -> tuple[Word, ...]:
        """Return what timestamps said, of all repositories."""
        rows = self._db.execute(
            f"SELECT {_WORD} FROM word WHERE role = ?",  # noqa: S608 - as above
            (words.TIMESTAMP,),
        )
        return tuple(map(_word, rows))

    def floor(self, product: str) -> int:
        """Return the lowest `seq` acceptable, as far as is known offline."""
        repository = self.product(product).repository
        return words.lowest(self.words(product, repository=repository))

    def roles(self) -> tuple[RoleSeen, ...]:
        """Return the roles of the signed metadata as last seen."""
        rows = self._db.execute("SELECT name, version, expires_at FROM role")
        return tuple(RoleSeen(*row) for row in rows)

    def meta(self, name: str) -> str | None:
        """Return a remark: `warnings` (JSON) of the last refresh, `set_aside`."""
        row = self._db.execute(
            "SELECT value FROM meta WHERE name = ?", (name,)
        ).fetchone()
        return None if row is None else str(row[0])

    def in_the_way(self, product: str) -> tuple[str, ...]:
        """Return what stood in the way when old releases were last deleted."""
        return tuple(json.loads(self.meta(f"{IN_THE_WAY}{product}") or "[]"))

    def last_good_time(self) -> float:
        """Return the latest time that was signed by who still counts, 0.0 for none."""
        rows = self._db.execute(
            f"SELECT {_WORD} FROM word WHERE role = ? "  # noqa: S608 - as above
            "AND repository IN (SELECT repository FROM product)",
            (words.TIMESTAMP,),
        )
        return words.passed(map(_word, rows))

    def newest_event(self) -> int:
        """Return the newest row of the inbox: what the feed had said by now."""
        (row,) = self._db.execute("SELECT max(row) FROM inbox").fetchone()
        return int(row or 0)

    def next_attempt_at(self, product: str) -> float | None:
        """Return when the product should be looked at again, None: no plan."""
        return self.product(product).next_attempt_at

    def failures(self, product: str) -> int:
        """Return how many runs in a row ended in an error."""
        return self.product(product).failures
