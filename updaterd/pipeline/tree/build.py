# SPDX-License-Identifier: Apache-2.0
"""Apply the bundles that were fetched, one after the other, up to a release on disk.

A run that is killed leaves what it made under the tree's id. The next one hashes
that, keeps the files that are right, and makes only the others: bundles are decoded
from the start, but what is there already is neither computed nor written again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from updaterd.artifact import sandbox
from updaterd.core.frozen import replaced
from updaterd.core.lifecycle import State
from updaterd.core.manifest import Delta, Entry, Full, Manifest, tree_id
from updaterd.core.routes import Route
from updaterd.core.settings import Product
from updaterd.errors import RejectedError, TransientError
from updaterd.install import stage
from updaterd.install.room import Watch
from updaterd.pipeline.machine import Services
from updaterd.pipeline.tree import finish, reuse


@dataclass(slots=True, kw_only=True)
class Job:
    """One release to be built, and what was learned on the way.

    Attributes:
        raw: returns the signed bytes of the manifest.
        bases: listings of the trees that a delta may start from, by version.
        have: their tree ids; one that turns out to be damaged is taken out.
        skip: bundles that failed in this run, by sha256.
        continued: entries of half-built trees that an earlier run had made.
        counted: bytes of its bundles that were here when `fetched` was last journalled;
            None: it is new, and what is here others have paid for.
        spoilt: code of the last bundle of which servers had no good copy.
        troubles: what failed, for a person.
    """

    product: Product
    manifest: Manifest
    raw: Callable[[], bytes]
    ident: int
    bases: dict[str, tuple[Entry, ...]]
    have: dict[str, str] = field(default_factory=dict)
    skip: set[str] = field(default_factory=set)
    continued: int = 0
    spoilt: str = ""
    fetched: int = 0
    counted: int | None = None
    troubles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.have = {name: tree_id(files) for name, files in self.bases.items()}

    @property
    def root(self) -> Path:
        """Return the install root."""
        return Path(self.product.root)


@dataclass(frozen=True, slots=True)
class Base:
    """A tree that a delta starts from: where it is, and its listing."""

    root: Path
    files: tuple[Entry, ...]


def build(job: Job, route: Route, bundles: list[Path], services: Services) -> None:
    """Apply the bundles one after the other; commit the last tree.

    Raises:
        RejectedError: a bundle does not make the tree that was signed, or the tree
            it starts from is damaged.
        TransientError: no disk space, no memory.
        OSError: the disk refused.

    Power cut: `releases/VERSION` is absent or whole. What was made of it stays under
        its tree id; the next run hashes it, keeps the files that are right, and
        makes only the others.
    """
    trees = [step.to_tree for step in route.steps if isinstance(step, Delta)]
    targets = [*trees[:-1], job.manifest.tree]
    stage.clear_leftovers(job.root, keep=set(map(stage.staging_name, targets)))
    base, going = _base(job, route), False
    try:
        for step, bundle, tree in zip(route.steps, bundles, targets, strict=True):
            staging = stage.open_staging(job.root, tree)
            if tree == job.manifest.tree:
                _make(job, route, (step, bundle), staging, base, services)
                finish.finish(staging, job.manifest)
                stage.commit(staging, job.root, job.manifest.version, job.raw())
            else:
                base = _between(job, (step, bundle), staging, base, services)
    except BaseException as error:
        going = _to_be_continued(error)
        raise
    finally:
        if not going:
            stage.clear_leftovers(job.root)


def _to_be_continued(error: BaseException) -> bool:
    """Tell whether the next run should go on from what this one made."""
    if isinstance(error, TransientError):
        return error.code not in {"disk_full", "disk_error"}
    return not isinstance(error, Exception)  # the machine is shutting down


def _make(  # noqa: PLR0913, PLR0917
    job: Job,
    route: Route,
    step: tuple[Full | Delta, Path],
    staging: Path,
    base: Base | None,
    services: Services,
) -> None:
    """Make the signed tree by the last bundle of a path.

    Raises:
        RejectedError: the bundle does not make it; or what is missing cannot be
            fetched apart from the rest.
        TransientError: no disk space, no memory; or what is missing cannot be
            fetched now.
    """
    files = job.manifest.files
    done = reuse.salvage(staging, files)
    job.continued += len(done)
    if len(done) == len(files):
        return
    work = _work(job, step, staging, base)
    report = _run(
        job,
        replaced(work, files=files, tree=job.manifest.tree, done=done),
        services,
    )
    if report.missing:
        damaged = f"{route.start} on disk is damaged"
        services.teller.say(f"{damaged}: {report.bad_old_files[0]}")
        job.troubles.append(damaged)
        fetching = services.note(
            "bad_old_files", f"{damaged}: what it lacks is fetched"
        )
        services.journal.move(job.ident, State.STAGING, fetching)
        received = services.fetcher.received
        lost = frozenset(report.missing)
        try:
            reuse.fetch_missing(job.manifest, lost, services, staging)
        except reuse.NoRangesError as error:
            job.skip.add(work.bundle_sha256)
            raise RejectedError(str(error), code=error.code) from error
        finally:
            job.fetched += services.fetcher.received - received
            services.journal.progress(job.ident, bytes_fetched=job.fetched)


def _between(
    job: Job,
    step: tuple[Full | Delta, Path],
    staging: Path,
    base: Base | None,
    services: Services,
) -> Base:
    """Return a tree between two deltas: one that a killed run finished, or a new one.

    Raises:
        RejectedError: the bundle does not make it, or the tree before is damaged.
        TransientError: no disk space, no memory.
    """
    work = _work(job, step, staging, base)
    known = reuse.listing(staging, work.tree)
    done = reuse.salvage(staging, known or (), linked=True)
    if known and len(done) == len(known):
        job.continued += len(done)
        return Base(staging, known)
    # Of half of it nobody knows what it should be.
    reuse.salvage(staging, ())
    report = _run(job, work, services)
    files = report.files or ()
    reuse.keep_listing(staging, files)
    return Base(staging, files)


def _run(job: Job, work: sandbox.Job, services: Services) -> sandbox.Report:
    """Apply one bundle in a worker.

    Raises:
        RejectedError: it will not be tried again in this run.
        TransientError: no disk space, no memory.
    """
    try:
        return sandbox.run(work, on_progress=_progress(job, services))
    except RejectedError:
        job.skip.add(work.bundle_sha256)
        raise


def _work(
    job: Job, named: tuple[Full | Delta, Path], staging: Path, base: Base | None
) -> sandbox.Job:
    step, bundle = named
    return sandbox.Job(
        kind="delta" if isinstance(step, Delta) else "full",
        codec=step.codec,
        bundle=bundle,
        bundle_sha256=step.sha256,
        bundle_length=step.length,
        destination=staging,
        files=None,
        tree=step.to_tree if isinstance(step, Delta) else job.manifest.tree,
        old=base.root if base else None,
        old_files=base.files if base else (),
        unchanged=job.product.unchanged,
    )


def _base(job: Job, route: Route) -> Base | None:
    if route.start is None:
        return None
    return Base(stage.releases(job.root) / route.start, job.bases[route.start])


def _progress(job: Job, services: Services) -> Callable[[int, int], None]:
    what = f"building {job.manifest.version}"
    watch = Watch(stage.private(job.root), min_free=services.download.min_free)

    def tell(done: int, total: int) -> None:
        services.teller.progress(what, done, total)
        watch.wrote(done)

    return tell
