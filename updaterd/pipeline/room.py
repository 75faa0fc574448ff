"""Whether a plan fits: what it will write, where, and what gives way for it."""

from collections.abc import Sequence
from pathlib import Path

from updaterd import places
from updaterd.artifact.clones import can_clone
from updaterd.core import room as sizes
from updaterd.core.deltas import Path as Route
from updaterd.core.manifest import Entry, File
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
    root: Path, version: str, files: Sequence[Entry], wanted: Sequence[Entry], how: str
) -> frozenset[str]:
    """Return the contents that a release on disk shares with a tree made beside it.

    Args:
        root: the install root.
        version: the release on disk.
        files: its listing.
        wanted: listing of the tree.
        how: "reflink", "hardlink" or "copy".
    """
    here = {e.sha256: e.mode for e in files if isinstance(e, File)}
    if how == "hardlink":
        # one name's mode is every name's: what has another is copied
        return frozenset(
            e.sha256
            for e in wanted
            if isinstance(e, File) and here.get(e.sha256) == e.mode
        )
    release = stage.releases(root) / version
    if how == "reflink" and can_clone(release, files, stage.private(root)):
        return frozenset(here)
    return frozenset()


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
        shared = shared_with(job.root, start, job.bases[start], files, how)
    coming = 0 if same else cache.missing(services, job.manifest, route)
    return [
        tree(job.root, job.manifest.version, files, shared),
        Need(folder=bundles, what="its bundles", bytes=coming),
    ]
