# SPDX-License-Identifier: Apache-2.0
"""What every step of the pipeline is about: one product on this machine.

A run is asked for something (`Request`), holds the product while it is at work
(`at_work`), and ends in an `Outcome`.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Product
from updaterd.errors import TransientError
from updaterd.files import roots
from updaterd.install import hooks, stage
from updaterd.pipeline import manifests
from updaterd.pipeline.machine import Services
from updaterd.store.journal import Journal, Note
from updaterd.system import locks
from updaterd.trust.client import Pushed


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the caller asked for.

    Attributes:
        trigger: manual, event, poll or boot.
        forced: `--now`: overrides window, splay and deferral; never a hold.
        retry_blocked: `--retry`: overrides a block, and that a tree is gone.
        to: the release that a person named; "": what the channel offers.
        dry: only say what would be done (`check`, `update --explain`).
        pushed: metadata that came with the event, unverified.
        as_of: Unix seconds at which the repository is judged, where it was carried
            here and could not be renewed; None: now.
    """

    trigger: str = "manual"
    forced: bool = False
    retry_blocked: bool = False
    to: str = ""
    dry: bool = False
    pushed: Pushed | None = None
    as_of: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended, for people and scripts.

    Attributes:
        result: current, installed, pending, held, blocked, refused, rolled_back.
        notes: what else a person should know, a sentence each.
        bytes_full: what the full bundle would have cost.
    """

    product: str
    result: str
    code: str
    reason: str
    from_version: str | None = None
    version: str | None = None
    path: str = ""
    alternatives: tuple[str, ...] = ()
    bytes_fetched: int = 0
    bytes_full: int = 0
    next_attempt_at: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One product, and the machine on which it is brought from release to release.

    Attributes:
        product: the application, as configured.
        services: the machine.
    """

    product: Product
    services: Services

    @property
    def name(self) -> str:
        """Return the product's name."""
        return self.product.name

    @property
    def root(self) -> Path:
        """Return the install root."""
        return Path(self.product.root)

    @property
    def journal(self) -> Journal:
        """Return the journal, of all products."""
        return self.services.journal

    def manifest(self, version: str) -> bytes | None:
        """Return the signed manifest of a release on disk; None: it is not known."""
        return manifests.whole(self.journal, self.product, version)

    def keep(self, version: str, manifest: bytes) -> str:
        """See that a manifest is kept beside its release; return its hash.

        Raises:
            OSError: the disk refused.

        Power cut: see `manifests.keep`.
        """
        return manifests.keep(self.root, version, manifest)

    def note(self, code: str = "", reason: str = "") -> Note:
        """Return a note for the journal, as of now."""
        return self.services.note(code, reason)

    def say(self, line: str) -> None:
        """Tell whoever watches what is being done, in one line."""
        self.services.teller.say(line)

    def hook(self, name: str, env: Mapping[str, str]) -> None:
        """Run the product's hook of that name, if one is configured.

        Raises:
            UnsafeCommandError: others could change it.
            HookError: it did not end with 0 in time.
        """
        trusted = self.services.trusted
        hooks.run_hook(name, self.product, env, trusted=trusted)


@contextmanager
def at_work(run: Run) -> Iterator[None]:
    """Hold the product; give what the disk and the journal refuse a name.

    Raises:
        TransientError: no room, or another process is at work on the product.
        BrokenError: nothing can be written there, or others may write there too.
        stage.failure: one of these.
    """
    lock = run.services.lock(run.product)
    with locks.hold(lock, subject=f"product {run.name}"):
        try:
            roots.close(run.product)
            roots.check(run.product)
            yield
        except OSError as error:
            raise stage.failure(error, f"{run.name}: the disk refused") from error
        except sqlite3.OperationalError as error:
            raise TransientError(
                f"{run.name}: the journal cannot be written: {error}",
                means="nothing goes on without it; the next run resumes",
                do="free disk space in the state directory, or look at its rights",
                code="journal_refused",
            ) from error
