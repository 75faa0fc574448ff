# SPDX-License-Identifier: Apache-2.0
"""Bring a release to disk by the cheapest path, and by the next where one fails.

    PLANNED -> FETCHING -> STAGING -> STAGED
                  ^           |
                  +-----------+   a bundle was refused: the next path, in the same run

Downloads go to the product's cache by the hash of their content, so an interrupted
one is continued by any release that lists the same bundle. A tree on disk that turns
out to be damaged is not used as a base again.
"""

import json
from contextlib import suppress
from pathlib import Path

from updaterd.artifact import codecs
from updaterd.artifact.verify import verify_tree
from updaterd.core import budget
from updaterd.core import manifest as manifests
from updaterd.core.bundle_kinds import ARCHIVES
from updaterd.core.lifecycle import State
from updaterd.core.manifest import Delta, Entry, File, Manifest
from updaterd.core.routes import Route, choose_route
from updaterd.errors import MalformedError, RejectedError, TransientError, UpdaterError
from updaterd.install import stage
from updaterd.install.room import DiskFullError
from updaterd.net import WORTHWHILE, NotFoundError
from updaterd.net.blobs import fetch_blob
from updaterd.pipeline import manifests as signed_manifests
from updaterd.pipeline.run import Run
from updaterd.pipeline.tree import byte_code, cache, finish, reuse, room
from updaterd.pipeline.tree.build import build
from updaterd.pipeline.tree.job import Job

_MOSTLY = 0.8


def prepare(job: Job) -> None:
    """Make room before anything is downloaded, and take stock of what is here.

    Bundles of other releases go first; what is here of this one's counts, also as
    downloaded when a run died before it could say so.

    Raises:
        DiskFullError: it does not fit.
        RejectedError: no bundle of it can be used.

    Power cut: as `room.check`.
    """
    cache.clear(job.run, keep=cache.listed(job.manifest))
    cached = cache.held(job.run, job.manifest)
    if job.counted is not None:
        job.fetched += max(0, cached - job.counted)
    job.run.journal.progress(job.ident, bytes_fetched=job.fetched, bytes_cached=cached)
    room.check(job, choose(job))


def is_whole(root: Path, manifest: Manifest) -> bool:
    """Tell whether `releases/VERSION` is, byte for byte, what the manifest says.

    Power cut: as `byte_code.swept`.
    """
    if manifest.version not in stage.look(root).whole:
        return False
    release = stage.releases(root) / manifest.version
    return not byte_code.swept(release, manifest.files, manifest.attributes)


def acquire(job: Job) -> Route:
    """Bring the release to STAGED by the cheapest path that works; return the path.

    Raises:
        RejectedError: no bundle of the release could be used.
        TransientError: network, disk space; the deployment stays open and the next
            run continues the download.
        OSError: the disk refused.

    Power cut: whole downloads and the part of the one that was under way stay, and
        so does a half-built tree (`build`).
    """
    while True:
        try:
            route = choose(job)
        except RejectedError:
            cache.clear(job.run)
            raise
        _announce(job, route)
        try:
            bundles = _fetch(job, route)
            job.run.journal.move(
                job.ident,
                State.STAGING,
                job.run.note(reason=f"building {job.manifest.version}"),
                bytes_fetched=job.fetched,
            )
            build(job, route, bundles)
        except RejectedError as error:
            _learn(job, route, error)
        except TransientError as error:
            if error.code != DiskFullError.code:
                raise
            inflated = _inflated(route)
            if len(route.steps) == 1 and not inflated:
                cache.clear(job.run)  # the room is not ours
                raise
            # Perhaps there is room without the trees in between, or without what is
            # inflated meanwhile, for which nobody asked beforehand.
            job.skip.update(inflated or {route.steps[0].sha256})
            _learn(job, route, error)
        else:
            break
    job.run.journal.progress(job.ident, path=_shown(job, route))
    sha256 = job.run.keep(job.manifest.version, job.raw())
    note = job.run.note(reason=route.reason)
    job.run.journal.stage(job.ident, sha256, job.manifest.tree, note)
    cache.clear(job.run)
    return route


def _inflated(route: Route) -> set[str]:
    """Return the steps of a route that take room for old archives, inflated."""
    return {
        step.sha256
        for step in route.steps
        if isinstance(step, Delta) and step.codec.startswith(ARCHIVES)
    }


def choose(job: Job) -> Route:
    """Return the cheapest path that did not fail yet.

    Raises:
        RejectedError: there is none left: the release cannot be built here.
        TransientError: there is none left, but servers had damaged copies, or none.
    """
    try:
        return choose_route(
            job.manifest,
            have=job.have,
            codecs=codecs.available(delta.codec for delta in job.manifest.deltas),
            skip=frozenset(job.skip),
            memory=budget.GROUND,
        )
    except RejectedError as error:
        why = f"; {job.troubles[-1]}" if job.troubles else ""
        if not job.spoilt:
            raise RejectedError(
                error.cause + why, means=error.means, do=error.do, code=error.code
            ) from error
        # The release may be fine: its copies are not. Servers get mended.
        raise TransientError(
            f"every copy of {job.manifest.version} is damaged or missing{why}",
            means="nothing was installed from it; the installed release goes on",
            do="ask the publisher to run `updaterd release verify --deep` on the "
            "server and its mirrors",
            code=job.spoilt,
        ) from error


def _announce(job: Job, route: Route) -> None:
    job.run.say(f"path: {route.reason}")
    job.run.journal.move(
        job.ident,
        State.FETCHING,
        job.run.note(reason=route.reason),
        path=_shown(job, route),
        bytes_planned=route.bytes,
        bytes_full=job.manifest.full.length,
    )


def _shown(job: Job, route: Route) -> str:
    return json.dumps({
        "kind": route.kind,
        "reason": route.reason,
        "troubles": job.troubles,
    })


def _fetch(job: Job, route: Route) -> list[Path]:
    """Download the bundles of a path; those in the cache already cost nothing.

    Raises:
        RejectedError: every mirror serves other bytes than were signed, or none.
        TransientError: not now.
    """
    bundles = []
    folder = job.run.services.bundles(job.manifest)
    watch = room.watch_cache(job)

    began = job.run.services.fetcher.received

    whole = 0  # of the bundles before

    def progress(done: int, _: int) -> None:
        job.run.services.teller.progress(
            f"downloading {job.manifest.version}",
            whole + done,
            sum(step.length for step in route.steps),
        )
        if job.run.services.fetcher.received > began:
            watch.wrote(done)

    for step in route.steps:
        received = job.run.services.fetcher.received
        try:
            bundle = fetch_blob(
                job.run.services.fetcher,
                job.run.services.bases,
                step.sha256,
                step.length,
                into=folder,
                progress=progress,
            )
        except (RejectedError, NotFoundError) as error:
            job.skip.add(step.sha256)
            job.spoilt = error.code
            raise RejectedError(str(error), code=error.code) from error
        finally:
            came = job.run.services.fetcher.received - received
            job.fetched += came
            job.run.journal.progress(
                job.ident,
                bytes_fetched=job.fetched,
                bytes_cached=cache.held(job.run, job.manifest),
            )
            if came >= WORTHWHILE:
                # The line carries something: the next wait is a first one again.
                job.run.journal.remember(job.run.name, failures=0)
        whole += step.length
        bundles.append(bundle)
    return bundles


def reassemble(job: Job) -> str | None:
    """Bring the release to STAGED from an application that others installed here.

    Returns:
        How, for a person; None when nothing of it can be used.

    Raises:
        TransientError: what is missing cannot be fetched now, or no disk space.
        RejectedError: what was fetched is not what was signed.
        OSError: the disk refused.

    Power cut: `releases/VERSION` is absent or whole.
    """
    files = {e.path: e.length for e in job.manifest.files if isinstance(e, File)}
    received = job.run.services.fetcher.received
    job.run.journal.move(
        job.ident, State.STAGING, job.run.note(reason="comparing with what is here")
    )
    stage.clear_leftovers(job.root)
    staging = stage.open_staging(job.root)
    try:
        missing = reuse.take_over(job.run, job.manifest, staging)
        if sum(files[path] for path in missing) > _MOSTLY * sum(files.values()):
            _passed_over(job, "most of it is not here")
            return None
        if missing:
            try:
                reuse.fetch_missing(job.manifest, missing, job.run.services, staging)
            except reuse.NoRangesError as error:
                _passed_over(job, error.cause)
                return None
        if verify_tree(staging, job.manifest.files):
            _passed_over(job, "what came of it is not what was signed")
            return None
        finish.finish(staging, job.manifest)
        stage.commit(staging, job.root, job.manifest.version, job.raw())
    finally:
        stage.delete_tree(staging)
    job.fetched += job.run.services.fetcher.received - received
    reason = f"{len(files) - len(missing)} of {len(files)} files were here already"
    job.run.journal.progress(
        job.ident, bytes_fetched=job.fetched, bytes_full=job.manifest.full.length
    )
    sha256 = job.run.keep(job.manifest.version, job.raw())
    note = job.run.note("adopted", reason)
    job.run.journal.stage(job.ident, sha256, job.manifest.tree, note)
    return reason


def _passed_over(job: Job, why: str) -> None:
    """Journal why the files that are here are not used, as a step.

    Power cut: as `_learn`.
    """
    reason = f"not made of the files that are here: {why}"
    job.run.journal.move(job.ident, State.STAGING, job.run.note(reason=reason))


def _learn(job: Job, route: Route, error: UpdaterError) -> None:
    """Journal what failed, as a step; `skip` leads to another choice.

    Power cut: the step is told or not; the next run finds out again.
    """
    job.troubles.append(str(error))
    job.run.say(f"that path failed: {error}")
    job.run.journal.move(
        job.ident,
        State.FETCHING,
        job.run.note(error.code, f"{route.name} failed: {error.cause}"),
        bytes_fetched=job.fetched,
    )


def base_trees(run: Run) -> dict[str, tuple[Entry, ...]]:
    """Return the listings of the trees on disk that a delta may start from."""
    whole = stage.look(run.root).whole
    listings = {}
    for release in run.journal.releases(run.name):
        if release.version not in whole:
            continue
        source = signed_manifests.source(run.journal, run.product, release.version)
        if source is not None:
            with suppress(MalformedError):  # of days when less was refused
                listings[release.version] = manifests.read(*source).files
    return listings
