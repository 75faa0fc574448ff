# SPDX-License-Identifier: Apache-2.0
"""Nothing is signed that was not applied: by the worker that machines use, in scratch.

A bundle is opened in the same confined process, within the same limits, by the
compiled loops and by those in Python (which serve machines without a compiler). The
tree that comes out is hashed whole by the parent (`artifact.worker.completion`).
Proofs share cores and memory with what is still being made (`pool`).
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from updaterd.artifact.apply import loops
from updaterd.artifact.job import Job
from updaterd.artifact.worker import parent
from updaterd.core import budget
from updaterd.core.bundle_kinds import KINDS
from updaterd.core.frozen import replaced
from updaterd.core.manifest import Delta, Entry, Full, tree_id
from updaterd.core.routes import CODECS, codecs_since
from updaterd.core.units import format_bytes
from updaterd.errors import BrokenError, RejectedError, UpdaterError
from updaterd.files import deletion
from updaterd.release.bundles.pool import Pool

Commands = Mapping[str, Sequence[str]]

_SILENT = frozenset({"worker_killed", "out_of_memory", "no_answer", "worker_silent"})
"""Ends of a worker that may be the bundle's doing or not: nothing is proven by them."""


def commands() -> Commands:
    """Return how the worker is started with each kind of loops that is here."""
    workers = {"the loops in Python": parent.command(interpreted=True)}
    if loops.best().__name__.endswith("compiled"):
        workers["the compiled loops"] = parent.command()
    return workers


class Prover:
    """Applies bundles in scratch, as machines will.

    Args:
        scratch: a directory for trees; each is deleted when it was compared.
        min_updater: the oldest updaterd that is to read them.
        workers: how to start each kind of worker.
        kinds: as `bundle_kinds.KINDS`.
        pool: cores and memory; None: nobody else needs any.
    """

    def __init__(
        self,
        scratch: Path,
        *,
        min_updater: str,
        workers: Commands | None = None,
        kinds: Mapping[str, str] = KINDS,
        pool: Pool | None = None,
    ) -> None:
        self._scratch = scratch
        self._min_updater = min_updater
        self._codecs = codecs_since(min_updater, kinds)
        self._workers = commands() if workers is None else workers
        self._pool = pool or Pool()

    def full(self, bundle: Path, full: Full, files: tuple[Entry, ...]) -> None:
        """Prove that a full bundle makes its tree.

        Raises:
            RejectedError: it does not.
            TransientError: the disk refused; nothing is known about it.
        """
        self._prove(
            Job(
                kind="full",
                codec=full.codec,
                bundle=bundle,
                bundle_sha256=full.sha256,
                bundle_length=full.length,
                destination="",
                files=files,
                tree=tree_id(files),
            ),
            "the full bundle",
            self._codecs,
        )

    def delta(  # noqa: PLR0913 - an edge has two ends
        self,
        bundle: Path,
        edge: Delta,
        old: Path,
        old_files: tuple[Entry, ...],
        files: tuple[Entry, ...],
        *,
        beside: bool = False,
    ) -> None:
        """Prove that a delta makes its tree from the published old one.

        Args:
            bundle: the delta.
            edge: as it is to be signed.
            old: the old release, unpacked from its published full bundle.
            old_files: its listing.
            files: listing of the new release.
            beside: it is offered beside another one, so that an updaterd which cannot
                read it passes it over and loses nothing.

        Raises:
            RejectedError: it does not, or takes more memory than it says.
            TransientError: the disk refused; nothing is known about it.
        """  # noqa: DOC501 - raised through _unproven
        name = f"the delta from {edge.from_version}"
        if edge.from_tree != tree_id(old_files) or edge.to_tree != tree_id(files):
            raise _unproven(name, "it is between other trees than it says")
        if edge.codec.startswith("full"):
            raise _unproven(name, f"{edge.codec} is not a codec of a delta")
        if edge.memory > budget.GROUND:
            needed = format_bytes(edge.memory)
            raise _unproven(name, f"it asks for {needed}, more than machines give")
        self._prove(
            Job(
                kind="delta",
                codec=edge.codec,
                bundle=bundle,
                bundle_sha256=edge.sha256,
                bundle_length=edge.length,
                destination="",
                files=files,
                tree=edge.to_tree,
                old=old,
                old_files=old_files,
            ),
            name,
            CODECS if beside else self._codecs,
        )

    def _prove(self, job: Job, name: str, codecs: frozenset[str]) -> None:
        if job.codec not in codecs:
            raise _unproven(
                name, f"updaterd {self._min_updater} cannot read {job.codec!r:.60}"
            )
        memory = budget.applying(job.old_files, job.files)
        for loop, argv in self._workers.items():
            with self._pool.room(memory), _folder(self._scratch) as tree:
                self._apply(replaced(job, destination=tree), name, loop, argv)

    def _apply(self, job: Job, name: str, loop: str, argv: Sequence[str]) -> None:
        try:
            report = parent.run(job, argv=argv)
        except (RejectedError, BrokenError) as error:
            raise _unproven(name, f"with {loop}: {error.cause}") from error
        except UpdaterError as error:
            if error.code in _SILENT:
                raise _unproven(name, f"with {loop}: {error.cause}") from error
            raise
        if report.missing or report.bad_old_files:
            first = (*report.missing, *report.bad_old_files)[0]
            raise _unproven(name, f"with {loop}: {first:.80} is not made by it")


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="proof-", dir=parent))
    try:
        yield path
    finally:
        deletion.delete_tree(path)


def _unproven(name: str, why: str) -> RejectedError:
    return RejectedError(
        f"{name} was applied and does not make the release: {why}",
        means="it was not signed",
        do="report this with both trees; the release can be pushed without it",
        code="not_proven",
    )
