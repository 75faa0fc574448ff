# SPDX-License-Identifier: Apache-2.0
"""Check that a plan fits on the disk, and make way for it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from updaterd.artifact.clones import can_clone
from updaterd.core import room as sizes
from updaterd.core.manifest import Entry, File, Manifest
from updaterd.core.routes import Route
from updaterd.files import places
from updaterd.install import room, stage
from updaterd.install.room import DiskFullError, Need, Watch
from updaterd.pipeline.tree import cache, finish
from updaterd.pipeline.tree.job import Job


def check(job: Job, route: Route) -> None:
    """Check that the release fits, before anything is downloaded.

    What is in the cache already counts. What stands in the way and may be needed goes
    first: half-built trees and bundles of other paths, then all that is ours.

    Raises:
        DiskFullError: it does not fit.
        OSError: the disk refused.

    Power cut: what goes can be made or fetched again.
    """
    min_free = job.run.services.download.min_free
    steps = frozenset(step.sha256 for step in route.steps)
    with suppress(DiskFullError):
        # To see what is shared takes a look at each file; most disks have more room.
        room.require(_needs(job, route, frozenset()), min_free=min_free)
        return
    shared = _shared(job, route)
    try:
        room.require(_needs(job, route, shared), min_free=min_free)
    except DiskFullError:
        stage.clear_leftovers(job.root)
        cache.clear(job.run, keep=steps)
        try:
            room.require(_needs(job, route, shared), min_free=min_free)
        except DiskFullError:
            cache.clear(job.run)  # a part that cannot become whole
            raise


def watch_cache(job: Job) -> Watch:
    """Return what watches the cache's file system while bundles come."""
    return Watch(
        job.run.services.bundles(job.manifest),
        min_free=job.run.services.download.min_free,
    )


def tree(
    root: Path, version: str, files: Sequence[Entry], shared: frozenset[str]
) -> Need:
    """Return what making a tree needs.

    Args:
        root: the install root.
        version: of the release.
        files: its listing.
        shared: paths of files that will not be copied.
    """
    private = stage.private(root)
    block = room.block_of(private)
    return Need(
        folder=private,
        subject=version,
        bytes=sizes.tree_bytes(files, block=block, shared=shared),
        inodes=sizes.inodes(files),
    )


def shared_with(
    root: Path, version: str, files: Sequence[Entry], manifest: Manifest, how: str
) -> frozenset[str]:
    """Return the paths of a tree whose bytes a release on disk shares with it.

    Args:
        root: the install root.
        version: the release on disk.
        files: its listing.
        manifest: of the tree, made beside it.
        how: "reflink", "hardlink" or "copy".
    """
    release = stage.releases(root) / version
    if how == "hardlink":
        return frozenset(_linked(release, files, manifest))
    if how == "reflink" and can_clone(release, files, stage.private(root)):
        contents = {e.sha256 for e in files if isinstance(e, File)}
        return frozenset(
            e.path
            for e in manifest.files
            if isinstance(e, File) and e.sha256 in contents
        )
    return frozenset()


def _linked(release: Path, files: Sequence[Entry], manifest: Manifest) -> Iterator[str]:
    """Yield the paths that stay hard links, each to what `completion` links it to."""
    old = {e.path: e for e in files if isinstance(e, File)}
    first = {e.sha256: e for e in reversed(old.values())}
    special = {item.path for item in manifest.attributes.special}
    times = manifest.attributes.each_time(len(manifest.files))
    for entry, time in zip(manifest.files, times, strict=True):
        if not isinstance(entry, File):
            continue
        source = old.get(entry.path)
        if source is None or source.sha256 != entry.sha256:
            source = first.get(entry.sha256)
        if source is None:
            continue
        with suppress(OSError):
            if finish.stays_linked(
                os.lstat(f"{release}/{source.path}"),
                entry.mode,
                time,
                is_special=entry.path in special,
            ):
                yield entry.path


def _same(job: Job) -> list[str]:
    """Return the releases on disk that are the same tree under another label."""
    return [name for name, tree in job.have.items() if tree == job.manifest.tree]


def _shared(job: Job, route: Route) -> frozenset[str]:
    """Return the paths of a tree that will not be copied."""
    same = _same(job)
    start = same[0] if same else route.start
    if start is None:
        return frozenset()
    how = job.run.product.unchanged
    if same and how == "hardlink":
        how = "copy"  # as `reuse.take_over`
    return shared_with(job.root, start, job.bases[start], job.manifest, how)


def _needs(job: Job, route: Route, shared: frozenset[str]) -> list[Need]:
    bundles = job.run.services.bundles(job.manifest)
    places.make(bundles)
    coming = 0 if _same(job) else cache.missing(job.run, job.manifest, route)
    return [
        tree(job.root, job.manifest.version, job.manifest.files, shared),
        Need(folder=bundles, subject="its bundles", bytes=coming),
    ]
