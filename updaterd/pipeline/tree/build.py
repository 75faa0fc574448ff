# SPDX-License-Identifier: Apache-2.0
"""Apply the bundles that were fetched, one after the other, up to a release on disk.

A run that is killed leaves what it made under the tree's id. The next one hashes
that, keeps the files that are right, and makes only the others: bundles are decoded
from the start, but what is there already is neither computed nor written again.
"""

from collections.abc import Callable
from pathlib import Path

from updaterd.artifact.worker import parent
from updaterd.core.dataclass import dataclass
from updaterd.core.frozen import replaced
from updaterd.core.lifecycle import State
from updaterd.core.manifest import Delta, Entry, Full
from updaterd.core.routes import Route
from updaterd.errors import RejectedError, TransientError
from updaterd.install import stage
from updaterd.install.room import Watch
from updaterd.pipeline.tree import finish, reuse
from updaterd.pipeline.tree.job import Job


@dataclass(frozen=True, slots=True)
class Base:
    """A tree that a delta starts from: where it is, and its listing."""

    root: Path
    files: tuple[Entry, ...]


def build(job: Job, route: Route, bundles: list[Path]) -> None:
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
                _make(job, route, (step, bundle), staging, base)
                finish.finish(staging, job.manifest)
                job.lend(stage.listing_path(job.root, job.manifest.version))
                stage.commit(staging, job.root, job.manifest.version, job.raw())
            else:
                base = _between(job, (step, bundle), staging, base)
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


def _make(
    job: Job,
    route: Route,
    step: tuple[Full | Delta, Path],
    staging: Path,
    base: Base | None,
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
    report = _run(job, replaced(work, files=files, tree=job.manifest.tree, done=done))
    if report.missing:
        damaged = f"{route.start} on disk is damaged"
        job.run.say(f"{damaged}: {report.bad_old_files[0]}")
        job.troubles.append(damaged)
        fetching = job.run.note("bad_old_files", f"{damaged}: what it lacks is fetched")
        job.run.journal.move(job.ident, State.STAGING, fetching)
        received = job.run.services.fetcher.received
        lost = frozenset(report.missing)
        try:
            reuse.fetch_missing(job.manifest, lost, job.run.services, staging)
        except reuse.NoRangesError as error:
            job.skip.add(work.bundle_sha256)
            raise RejectedError(str(error), code=error.code) from error
        finally:
            job.fetched += job.run.services.fetcher.received - received
            job.run.journal.progress(job.ident, bytes_fetched=job.fetched)


def _between(
    job: Job, step: tuple[Full | Delta, Path], staging: Path, base: Base | None
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
    report = _run(job, work)
    files = report.files or ()
    reuse.keep_listing(staging, files)
    return Base(staging, files)


def _run(job: Job, work: parent.Job) -> parent.Report:
    """Apply one bundle in a worker.

    Raises:
        RejectedError: it will not be tried again in this run.
        TransientError: no disk space, no memory.
    """
    try:
        return parent.run(work, on_progress=_progress(job))
    except RejectedError:
        job.skip.add(work.bundle_sha256)
        raise


def _work(
    job: Job, named: tuple[Full | Delta, Path], staging: Path, base: Base | None
) -> parent.Job:
    step, bundle = named
    return parent.Job(
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
        unchanged=job.run.product.unchanged,
    )


def _base(job: Job, route: Route) -> Base | None:
    if route.start is None:
        return None
    return Base(stage.releases(job.root) / route.start, job.bases[route.start])


def _progress(job: Job) -> Callable[[int, int], None]:
    step = f"building {job.manifest.version}"
    watch = Watch(stage.private(job.root), min_free=job.run.services.download.min_free)

    def tell(done: int, total: int) -> None:
        job.run.services.teller.progress(step, done, total)
        watch.wrote(done)

    return tell
