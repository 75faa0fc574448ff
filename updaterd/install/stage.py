# SPDX-License-Identifier: Apache-2.0
"""Where a release grows up, and how it becomes one of `releases/`.

On disk, under the install root (`layout.py` has all of it):
    .updaterd/                   updaterd's own; in the same mount as `releases`
        stage-RANDOM/            a tree being built
        stage-TREE/              the same, under its tree id: one that is killed is
        stage-TREE.json          continued; the listing of a tree between two deltas
        trash-RANDOM/            a tree on its way out

A directory in `releases` is whole and durable by construction: it gets its name by
one rename, after a syncfs of everything in it. So a half-built tree can never be
taken for a release, whatever happened.

Unchanged files come from the old release by reflink where the file system can
(btrfs, xfs: a private copy that costs nothing), else by hard link or by copy, as
`unchanged` says. A hard link shares its bytes with the old release: an application
that writes into its own tree would change both, and roll back would return to a
damaged release. So `reflink` falls back to copying; `hardlink` is for applications
that are known to leave their tree alone.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Container
from pathlib import Path

from updaterd import durable
from updaterd.errors import BrokenError, TransientError, UpdaterError
from updaterd.files import deletion, regular, volumes
from updaterd.files.volumes import Obstacle
from updaterd.install import beside, layout
from updaterd.install.layout import (
    PRIVATE,
    look,
    manifest_path,
    private,
    releases,
    saved_manifests,
)
from updaterd.install.room import DiskFullError

__all__ = ["PRIVATE", "look", "manifest_path", "private", "releases", "saved_manifests"]

_CANNOT_RENAME = frozenset({
    errno.EXDEV,  # a lower layer of an overlay
    errno.EINVAL,  # no exchange on this file system (NFS)
    errno.ENOSYS,
    errno.EOPNOTSUPP,
})
_PIECE = 1 << 18


def open_staging(root: Path, tree: str | None = None) -> Path:
    """Return a directory to build a tree in.

    Args:
        root: the install root.
        tree: its tree id: what a killed run made of the same tree is still in the
            directory, to be compared with the listing before it is kept. Without,
            the directory is new, under a random name.

    Raises:
        BrokenError: the private directory is not ours.
        OSError: the disk refused.

    Power cut: the directory is left over; the next run of the same deployment goes
        on with it, otherwise `clear_leftovers` removes it.
    """
    if tree is None:
        return Path(tempfile.mkdtemp(prefix="stage-", dir=private(root)))
    path = private(root) / staging_name(tree)
    status = path.lstat() if os.path.lexists(path) else None
    if status is not None and not stat.S_ISDIR(status.st_mode):
        path.unlink()
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    return path


def open_beside(staging: Path) -> Path:
    """Return an empty directory beside one in which a tree is built.

    Raises:
        OSError: the disk refused.

    Power cut: the directory is left over; `clear_leftovers` removes it.
    """
    return Path(tempfile.mkdtemp(prefix="stage-", dir=staging.parent))


def staging_name(tree: str) -> str:
    """Return the name of the directory in which a tree is built."""
    return f"stage-{tree}"


def commit(staging: Path, root: Path, version: str, manifest: bytes) -> None:
    """Make the whole tree in `staging` the release `version`.

    An older directory of that name is set aside in the same step (repair); where
    that cannot be done, the tree is built beside it, see `beside`.

    Raises:
        BrokenError: another file system is mounted in the older directory, or what
            is left of it cannot be deleted.
        OSError: the disk refused; `releases/VERSION` is as it was.

    Power cut: `releases/VERSION` is absent (or the older tree), or whole: it gets
        its name only after everything in it is on the disk.
    """
    target = releases(root) / version
    require_ours(root, version)
    listing = listing_path(root, version)
    if not _holds(listing, manifest):
        durable.write_file(listing, manifest)
    staging.chmod(0o755)
    durable.sync_fs(staging)
    if version in layout.marked(root):
        _require(beside.delete_in_place(root, version), version)
    if not os.path.lexists(target):
        durable.rename(staging, target)
        return
    try:
        durable.exchange(staging, target)
    except OSError as error:
        if error.errno not in _CANNOT_RENAME:
            raise
        if look(root).running == version:
            beside.switch(staging, root, version)
        else:
            _require(beside.delete_in_place(root, version), version)
            durable.rename(staging, target)
    else:
        set_aside(root, staging)


def listing_path(root: Path, version: str) -> Path:
    """Return where the manifest of a release that is being made belongs."""
    return private(root) / "manifests" / f"{version}.json"


def _holds(path: Path, data: bytes) -> bool:
    """Tell whether a file has these bytes."""
    try:
        with open(regular.opened(path), "rb") as file:
            at = 0
            while piece := file.read(_PIECE):
                if piece != data[at : at + len(piece)]:
                    return False
                at += len(piece)
    except OSError:
        return False
    return at == len(data)


def require_ours(root: Path, version: str) -> None:
    """Check that no other file system is mounted where a release is to be replaced.

    Raises:
        BrokenError: one is.
    """
    _require(volumes.foreign(releases(root) / version), version)


def _require(obstacles: tuple[Obstacle, ...], version: str) -> None:
    """Go on only when nothing stands in the way.

    Raises:
        BrokenError: something does.
    """
    if obstacles:
        more = f" (and {len(obstacles) - 1} more)" if obstacles[1:] else ""
        raise BrokenError(
            f"{version} cannot be replaced: {obstacles[0]}{more}",
            means="updaterd touches no other file system; nothing was changed there",
            do="unmount it or move it away, then run this again",
            code="in_the_way",
        )


def set_aside(root: Path, path: Path) -> Path:
    """Rename a tree out of the way, to be deleted when nothing runs from it.

    Power cut: the tree is at its old name or in the trash, whole.
    """
    trash = private(root) / f"trash-{os.urandom(6).hex()}"
    durable.rename(path, trash)
    return trash


def discard(root: Path, version: str) -> tuple[Obstacle, ...]:
    """Make `releases/VERSION` a release no more; return what of it stays on disk.

    It is set aside where it can be renamed, else deleted where it is. With another
    file system in it it stays whole.

    Raises:
        OSError: the disk refused; it is whole.

    Power cut: it is whole, or no release any more; `prune.empty_trash` deletes what
        is left.
    """
    tree = releases(root) / version
    obstacles = volumes.foreign(tree)
    if obstacles:
        return obstacles
    linked = tree.readlink() if tree.is_symlink() else None
    try:
        if linked == Path("..", layout.OTHERS) and os.path.lexists(
            root / layout.OTHERS
        ):
            # first: without the link nothing would lead there any more
            trash = layout.own(root) / f"trash-{os.urandom(6).hex()}"
            durable.rename(root / layout.OTHERS, trash)
        set_aside(root, tree)
    except OSError as error:
        if error.errno not in _CANNOT_RENAME:
            raise
        obstacles = beside.delete_in_place(root, version)
    for place in layout.places(root):
        durable.remove(place / "manifests" / f"{version}.json")
    return obstacles


def clear_leftovers(
    root: Path, *, trash: bool = False, keep: Container[str] = ()
) -> tuple[Obstacle, ...]:
    """Delete what dead runs left; return what of it stays.

    Half-built trees, half-made links, files that never got their names.

    Args:
        root: the install root.
        trash: also trees that were set aside (prune has seen that nothing runs there).
        keep: names of half-built trees that are going to be continued.

    Power cut: part of it is deleted; the next call deletes the rest.
    """
    kinds = ["stage-*", "trash-*"] if trash else ["stage-*"]
    obstacles: list[Obstacle] = []
    for place in layout.places(root):
        for kind in kinds:
            for path in place.glob(kind):
                if path.name.removesuffix(".json") not in keep:
                    obstacles += deletion.delete_tree(path)
        for folder in (place, place / "manifests"):
            for path in folder.glob(".*.new"):
                obstacles += deletion.delete_tree(path)
    for path in root.glob(".*.new"):
        if path.is_symlink():
            path.unlink(missing_ok=True)
    return tuple(obstacles)


def delete_tree(path: Path) -> tuple[Obstacle, ...]:
    """Delete a tree that has no name of a release; return what stood in the way."""
    return deletion.delete_tree(path)


def failure(error: OSError, context: str) -> UpdaterError:
    """Return what a refusal of the disk means: no room, or a person is needed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"{context}: {error.strerror}",
            means="the installed release goes on running",
            do="free disk space; the next run goes on",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return BrokenError(
            f"{context}: {error.filename or ''}: {error.strerror}",
            means="updates cannot be written there; the installed release goes on",
            do="mount it writable, or correct its owner and permissions",
            code="not_writable",
        )
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return BrokenError(
            f"{context}: {error.filename or ''}: {error.strerror}",
            means="something is mounted there, or there are two file systems where one "
            "is needed; the installed release goes on",
            do="see `findmnt`; unmount it",
            code="in_the_way",
        )
    is_moved = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return TransientError(
        f"{context}: {error}",
        means="the installed release goes on running",
        do="it is not there any more: see who else moves or deletes what is there; the "
        "next run goes on"
        if is_moved
        else "see the kernel's log for disk errors",
        code="disk_error",
    )
