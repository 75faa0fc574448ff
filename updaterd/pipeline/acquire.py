"""Bundles into a whole tree on disk: the cheapest path first, in the end the full one.

    PLANNED -> FETCHING -> STAGING -> STAGED
                  ^           |
                  +-----------+   a bundle was refused: the next path, in the same run

Downloads go to the cache by the hash of their content, so an interrupted one is
continued whatever release asks for it. A tree on disk that turns out to be damaged
is not used as a base again.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from updaterd.artifact import codecs, sandbox
from updaterd.artifact.fetch import fetch_blob
from updaterd.artifact.verify import verify_tree
from updaterd.core import manifest as manifests
from updaterd.core.deltas import Path as Route
from updaterd.core.deltas import choose_path
from updaterd.core.lifecycle import State
from updaterd.core.manifest import Delta, Entry, File, Full, Manifest, tree_id
from updaterd.core.records import replaced
from updaterd.core.settings import Product
from updaterd.errors import RejectedError, TransientError
from updaterd.install import stage
from updaterd.pipeline import reuse
from updaterd.pipeline.services import Services

_MOSTLY = 0.8
_FORGOTTEN_S = 30 * 86400.0


@dataclass(slots=True, kw_only=True)
class Job:
    """One release to be built, and what was learned on the way.

    Attributes:
        bases: listings of the trees that a delta may start from, by version.
        have: their tree ids; one that turns out to be damaged is taken out.
        skip: bundles that failed in this run, by sha256.
        used: bundles that were fetched.
        spoilt: servers had other bytes than were signed, for some bundle.
        troubles: what failed, for a person.
    """

    product: Product
    manifest: Manifest
    raw: bytes
    ident: int
    bases: dict[str, tuple[Entry, ...]]
    have: dict[str, str] = field(default_factory=dict)
    skip: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    spoilt: bool = False
    fetched: int = 0
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


def is_whole(root: Path, manifest: Manifest) -> bool:
    """Tell whether `releases/VERSION` is, byte for byte, what the manifest says."""
    release = stage.releases(root) / manifest.version
    return release.is_dir() and not verify_tree(release, manifest.files)


def acquire(job: Job, services: Services) -> Route:
    """Bring the release to STAGED by the cheapest path that works; return the path.

    Raises:
        RejectedError: no bundle of the release could be used.
        TransientError: network, disk space; the deployment stays open and the next
            run continues the download.
        OSError: the disk refused.

    Power cut: whole downloads and the part of the one that was under way stay; a
        half-built tree is deleted by the next run.
    """
    while True:
        route = choose(job)
        _announce(job, route, services)
        try:
            bundles = _fetch(job, route, services)
            services.journal.move(
                job.ident,
                State.STAGING,
                services.note(reason=f"building {job.manifest.version}"),
                bytes_fetched=job.fetched,
            )
            build(job, route, bundles, services)
        except RejectedError as error:
            _learn(job, error, services)
        else:
            break
    services.journal.progress(job.ident, path=_shown(job, route))
    services.journal.stage(
        job.ident, job.raw, job.manifest.tree, services.note(reason=route.reason)
    )
    _clear_bundles(services, job.used)
    return route


def _clear_bundles(services: Services, used: set[str]) -> None:
    """Delete the bundles of a release that is whole now, and forgotten ones."""
    oldest = services.clock() - _FORGOTTEN_S
    for path in (services.cache / "bundles").glob("*"):
        with suppress(OSError):
            if path.name in used or path.stat().st_mtime < oldest:
                path.unlink()


def choose(job: Job) -> Route:
    """Return the cheapest path that did not fail yet.

    Raises:
        RejectedError: there is none left: the release cannot be built here.
        TransientError: there is none left, but servers had damaged copies.
    """
    try:
        return choose_path(
            job.manifest,
            have=job.have,
            codecs=codecs.available(),
            skip=frozenset(job.skip),
        )
    except RejectedError as error:
        why = f"; {job.troubles[-1]}" if job.troubles else ""
        if not job.spoilt:
            raise RejectedError(
                error.what + why, means=error.means, do=error.do, code=error.code
            ) from error
        # The release may be fine: its copies are not. Servers get mended.
        raise TransientError(
            f"every copy of {job.manifest.version} is damaged{why}",
            means="nothing was installed from it; the installed release goes on",
            do="whoever runs the server or its mirrors should compare the blobs",
            code="hash_mismatch",
        ) from error


def _announce(job: Job, route: Route, services: Services) -> None:
    services.teller.say(f"path: {route.reason}")
    services.journal.move(
        job.ident,
        State.FETCHING,
        services.note(reason=route.reason),
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


def _fetch(job: Job, route: Route, services: Services) -> list[Path]:
    """Download the bundles of a path; those in the cache already cost nothing.

    Raises:
        RejectedError: every mirror serves other bytes than were signed.
        TransientError: not now.
    """
    found = []
    folder = services.cache / "bundles"
    for step in route.steps:
        received = services.fetcher.received
        job.used.add(step.sha256)
        try:
            bundle = fetch_blob(
                services.fetcher,
                services.bases,
                step.sha256,
                step.length,
                into=folder,
                max_rate=services.download.max_rate,
                progress=lambda done, total: services.teller.progress(
                    f"downloading {job.manifest.version}", done, total
                ),
            )
        except RejectedError as error:
            job.skip.add(step.sha256)
            job.spoilt = True
            raise RejectedError(str(error), code=error.code) from error
        finally:
            job.fetched += services.fetcher.received - received
            services.journal.progress(job.ident, bytes_fetched=job.fetched)
        found.append(bundle)
    return found


def reassemble(job: Job, services: Services) -> str | None:
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
    received = services.fetcher.received
    services.journal.move(
        job.ident, State.STAGING, services.note(reason="comparing with what is here")
    )
    staging = stage.open_staging(job.root)
    try:
        missing = reuse.take_over(job.product, job.manifest, services, staging)
        if sum(files[path] for path in missing) > _MOSTLY * sum(files.values()):
            return None  # the full bundle in one piece costs less
        if missing:
            reuse.fetch_missing(job.manifest, missing, services, staging)
        if verify_tree(staging, job.manifest.files):
            return None
        stage.commit(staging, job.root, job.manifest.version, job.raw)
    finally:
        stage.delete_tree(staging)
    job.fetched += services.fetcher.received - received
    reason = f"{len(files) - len(missing)} of {len(files)} files were here already"
    services.journal.progress(
        job.ident, bytes_fetched=job.fetched, bytes_full=job.manifest.full.length
    )
    services.journal.stage(
        job.ident, job.raw, job.manifest.tree, services.note("adopted", reason)
    )
    return reason


def build(job: Job, route: Route, bundles: list[Path], services: Services) -> None:
    """Apply the bundles one after the other; commit the last tree.

    Raises:
        RejectedError: a bundle does not make the tree that was signed, or the tree
            it starts from is damaged.
        TransientError: no disk space, no memory.
        OSError: the disk refused.

    Power cut: `releases/VERSION` is absent or whole.
    """
    base, made = _base(job, route), list[Path]()
    try:
        for number, (step, bundle) in enumerate(zip(route.steps, bundles, strict=True)):
            made.append(stage.open_staging(job.root))
            work = _work(job, step, bundle, made[-1], base)
            if number == len(bundles) - 1:
                work = replaced(work, files=job.manifest.files, tree=job.manifest.tree)
            try:
                report = sandbox.run(work, on_progress=_progress(job, services))
            except RejectedError:
                job.skip.add(step.sha256)
                raise
            if report.missing:
                damaged = f"{route.start} on disk is damaged"
                services.teller.say(f"{damaged}: {report.bad_old_files[0]}")
                job.troubles.append(damaged)
                lost = frozenset(report.missing)
                received = services.fetcher.received
                reuse.fetch_missing(job.manifest, lost, services, made[-1])
                job.fetched += services.fetcher.received - received
                services.journal.progress(job.ident, bytes_fetched=job.fetched)
            base = Base(made[-1], report.files or ())
        stage.commit(made.pop(), job.root, job.manifest.version, job.raw)
    finally:
        for staging in made:
            stage.delete_tree(staging)


def _work(
    job: Job, step: Full | Delta, bundle: Path, staging: Path, base: Base | None
) -> sandbox.Job:
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
    return lambda done, total: services.teller.progress(what, done, total)


def _learn(job: Job, error: RejectedError, services: Services) -> None:
    """Take note of what failed; `skip` and `have` lead to another choice."""
    job.troubles.append(str(error))
    services.teller.say(f"that path failed: {error}")


def base_trees(product: Product, services: Services) -> dict[str, tuple[Entry, ...]]:
    """Return the listings of the trees on disk that a delta may start from."""
    whole = stage.look(Path(product.root)).whole
    found = {}
    for release in services.journal.releases(product.name):
        raw = services.journal.manifest_bytes(product.name, release.version)
        if release.version in whole and raw:
            found[release.version] = manifests.parse(raw).files
    return found
