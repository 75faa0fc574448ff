# SPDX-License-Identifier: Apache-2.0
"""Count a product's bundles in the cache, and delete those that nobody needs any more.

A bundle is needed until the tree that it makes is a release on disk. So whoever comes
next knows what a dead run left: bundles of releases that are whole, and of none that is
wanted.
"""

import os
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from updaterd.core import manifest as manifests
from updaterd.core.manifest import Delta, Full, Manifest
from updaterd.core.routes import Route
from updaterd.errors import MalformedError
from updaterd.files import volumes
from updaterd.pipeline.run import Run

_FORGOTTEN_S = 30 * 86400.0


def listed(manifest: Manifest) -> frozenset[str]:
    """Return the bundles that a release may be made with, by sha256."""
    return frozenset({manifest.full.sha256, *(d.sha256 for d in manifest.deltas)})


def held(run: Run, manifest: Manifest) -> int:
    """Return how many bytes of a release's bundles are here, whole or in part."""
    bundles = listed(manifest)
    return sum(
        _size(path)
        for path in run.services.bundles(manifest).glob("*")
        if path.name.removesuffix(".part") in bundles
    )


def missing(run: Run, manifest: Manifest, route: Route) -> int:
    """Return how many bytes of a path's bundles are still to be downloaded."""
    folder = run.services.bundles(manifest)
    return sum(
        max(0, step.length - _cached_bytes(folder, step)) for step in route.steps
    )


def _cached_bytes(folder: Path, step: Full | Delta) -> int:
    return max(_size(folder / step.sha256), _size(folder / f"{step.sha256}.part"))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def clear(run: Run, *, keep: Container[str] = frozenset()) -> None:
    """Delete the product's bundles but those in `keep`: of releases that are done.

    Whole now, refused, or passed over by a newer one while they came. And what nobody
    else will: of products that are configured no more, and of an updaterd that gave
    products no folders.

    Power cut: some are deleted; the next call deletes the rest.
    """
    folder = run.services.cache / "bundles" / run.name
    for path in folder.glob("*"):
        if path.name.partition(".")[0] not in keep:
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):
        _clear_others(folder, oldest=run.services.clock() - _FORGOTTEN_S)


def _clear_others(folder: Path, *, oldest: float) -> None:
    """Delete files beside a product's folder, and old ones in the folders beside it.

    Not through a link, and not in another file system that is mounted there.

    Raises:
        OSError: the cache cannot be read.

    Power cut: some of them are gone.
    """
    cache = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for item in volumes.walk(cache, lambda path: "/" not in path):
            if item.folder or item.path.startswith(f"{folder.name}/"):
                continue
            with suppress(OSError):
                status = os.lstat(item.name, dir_fd=item.directory)
                if "/" not in item.path or status.st_mtime < oldest:
                    os.unlink(item.name, dir_fd=item.directory)
    finally:
        os.close(cache)


def clear_built(run: Run) -> None:
    """Delete the bundles of releases that are on disk: a run died before it did.

    Power cut: as `clear`.
    """
    paths = list((run.services.cache / "bundles" / run.name).glob("*"))
    if not paths:
        return  # as always: no listing is read for nothing
    built: set[str] = set()
    for release in run.journal.releases(run.name):
        raw = run.manifest(release.version)
        if raw:
            with suppress(MalformedError):  # of days when less was refused
                built |= listed(manifests.parse(raw))
    for path in paths:
        if path.name.partition(".")[0] in built:
            with suppress(OSError):
                path.unlink()
