"""Whether a plan fits: what it will write, where, and what gives way for it."""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from updaterd import places
from updaterd.artifact.clones import can_clone
from updaterd.core import room as sizes
from updaterd.core.deltas import Path as Route
from updaterd.core.manifest import Entry, File, Manifest
from updaterd.install import room, stage
from updaterd.install.room import DiskFullError, Need, Watch
from updaterd.pipeline import cache
from updaterd.pipeline.build import Job
from updaterd.pipeline.services import Services


def check(job: Job, route: Route, services: Services) -> None:
    """Check that the release fits, before anything is downloaded.

    What is in the cache already counts. What stands in the way and may be needed goes
    first: half-built trees and bundles of other paths, then all that is ours.

    Raises:
        DiskFullError: it does not fit.
        OSError: the disk refused.

    Power cut: what goes can be made or fetched again.
    """
    name, min_free = job.product.name, services.download.min_free
    steps = frozenset(step.sha256 for step in route.steps)
    try:
        room.require(_needs(job, route, services), min_free=min_free)
    except DiskFullError:
        stage.clear_leftovers(job.root)
        cache.clear(services, name, keep=steps)
        try:
            room.require(_needs(job, route, services), min_free=min_free)
        except DiskFullError:
            cache.clear(services, name)  # a part that cannot become whole
            raise


def watch_cache(job: Job, services: Services) -> Watch:
    """Return what watches the cache's file system while bundles come."""
    return Watch(services.bundles(job.manifest), min_free=services.download.min_free)


def tree(
    root: Path, version: str, files: Sequence[Entry], shared: frozenset[str]
) -> Need:
    """Return what making a tree needs.

    Args:
        root: the install root.
        version: of the release.
        files: its listing.
        shared: sha256 of contents that will not be copied.
    """
    private = stage.private(root)
    block = room.block_of(private)
    return Need(
        folder=private,
        what=version,
        bytes=sizes.tree_bytes(files, block=block, shared=shared),
        inodes=sizes.inodes(files),
    )


def shared_with(
    root: Path, version: str, files: Sequence[Entry], manifest: Manifest, how: str
) -> frozenset[str]:
    """Return the contents that a release on disk shares with a tree made beside it.

    Args:
        root: the install root.
        version: the release on disk.
        files: its listing.
        manifest: of the tree.
        how: "reflink", "hardlink" or "copy".
    """
    release = stage.releases(root) / version
    here = {e.sha256: e.path for e in files if isinstance(e, File)}
    if how == "hardlink":
        return _linked(release, here, manifest)
    if how == "reflink" and can_clone(release, files, stage.private(root)):
        return frozenset(here)
    return frozenset()


def _linked(
    release: Path, here: Mapping[str, str], manifest: Manifest
) -> frozenset[str]:
    """Return the contents that stay hard links.

    One name's mode and time are every name's: what has others becomes a file of its
    own (`destination`, `finish`).
    """
    found, own = set[str](), set[str]()
    for place, entry in enumerate(manifest.files):
        if not isinstance(entry, File) or entry.sha256 not in here:
            continue
        time = manifest.attributes.time_of(place)
        try:
            status = (release / here[entry.sha256]).lstat()
        except OSError:
            own.add(entry.sha256)
            continue
        fits = stat.S_IMODE(status.st_mode) == entry.mode and (
            time is None or int(status.st_mtime) == time
        )
        (found if fits else own).add(entry.sha256)
    return frozenset(found - own)


def _needs(job: Job, route: Route, services: Services) -> list[Need]:
    bundles = services.bundles(job.manifest)
    places.make(bundles)
    files, shared = job.manifest.files, frozenset[str]()
    same = [name for name, tree in job.have.items() if tree == job.manifest.tree]
    start = same[0] if same else route.start  # of the same tree under another label
    how = job.product.unchanged
    if same and how == "hardlink":
        how = "copy"  # as `reuse.take_over`
    if start is not None:
        shared = shared_with(job.root, start, job.bases[start], job.manifest, how)
    coming = 0 if same else cache.missing(services, job.manifest, route)
    return [
        tree(job.root, job.manifest.version, files, shared),
        Need(folder=bundles, what="its bundles", bytes=coming),
    ]
