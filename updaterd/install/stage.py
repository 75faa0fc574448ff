"""Where a release grows up, and how it becomes one of `releases/`.

On disk, under the install root, beside what `activate` lists:
    .updaterd/                   0700, updaterd's own; same file system as `releases`
        stage-RANDOM/            a tree being built
        stage-TREE/              the same, under its tree id: one that is killed is
        stage-TREE.json          continued; the listing of a tree between two deltas
        trash-RANDOM/            a tree on its way out
        manifests/VERSION.json   the signed listing of releases/VERSION

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

import os
import shutil
import stat
import tempfile
from collections.abc import Container, Iterable
from pathlib import Path

from updaterd import durable
from updaterd.core.manifest import File, Manifest
from updaterd.core.recovery import Disk, Link
from updaterd.core.units import format_bytes
from updaterd.errors import BrokenError, TransientError, UpdaterError

PRIVATE = ".updaterd"
_SPARE_INODES = 64


class DiskFullError(TransientError):
    """There is no room for the release; nothing was changed."""

    code = "disk_full"


def releases(root: Path) -> Path:
    """Return where whole releases stand."""
    return root / "releases"


def private(root: Path) -> Path:
    """Return updaterd's own directory under `root`, made when it is missing.

    Raises:
        BrokenError: another user's, or not a directory: what is built in there
            could be changed after it was verified.
        OSError: the disk refused.

    Power cut: the directory is there, empty, or not.
    """
    path = root / PRIVATE
    durable.make_dir(root)
    durable.make_dir(releases(root))
    if not path.is_symlink():
        durable.make_dir(path, mode=0o700)
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.geteuid():
        raise BrokenError(
            f"{path} is not a directory of this user",
            means="another user could change a release after it was verified",
            do=f"remove {path}; updaterd makes it anew",
            code="unsafe_staging",
        )
    if status.st_mode & 0o077:
        path.chmod(0o700)
    durable.make_dir(path / "manifests", mode=0o700)
    return path


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


def staging_name(tree: str) -> str:
    """Return the name of the directory in which a tree is built."""
    return f"stage-{tree}"


def commit(staging: Path, root: Path, version: str, manifest: bytes) -> None:
    """Make the whole tree in `staging` the release `version`.

    An older directory of that name is set aside in the same step (repair).

    Raises:
        OSError: the disk refused; `releases/VERSION` is as it was.

    Power cut: `releases/VERSION` is absent (or the older tree), or whole: it gets
        its name only after everything in it is on the disk.
    """
    target = releases(root) / version
    durable.write_file(manifest_path(root, version), manifest)
    staging.chmod(0o755)
    durable.sync_fs(staging)
    if target.is_dir() or target.is_symlink():
        durable.exchange(staging, target)
        set_aside(root, staging)
    else:
        durable.rename(staging, target)


def manifest_path(root: Path, version: str) -> Path:
    """Return where the listing of a release is kept, for a day without a journal."""
    return root / PRIVATE / "manifests" / f"{version}.json"


def set_aside(root: Path, path: Path) -> Path:
    """Rename a tree out of the way, to be deleted when nothing runs from it.

    Power cut: the tree is at its old name or in the trash, whole.
    """
    trash = private(root) / f"trash-{os.urandom(6).hex()}"
    durable.rename(path, trash)
    return trash


def clear_leftovers(
    root: Path, *, trash: bool = False, keep: Container[str] = ()
) -> None:
    """Delete what dead runs left: half-built trees, half-made links.

    Args:
        root: the install root.
        trash: also trees that were set aside (prune has seen that nothing runs there).
        keep: names of half-built trees that are going to be continued.

    Power cut: part of it is deleted; the next call deletes the rest.
    """
    kinds = ["stage-*", "trash-*"] if trash else ["stage-*"]
    for kind in kinds:
        for path in (root / PRIVATE).glob(kind):
            if path.name.removesuffix(".json") not in keep:
                delete_tree(path)
    for path in root.glob(".*.new"):
        if path.is_symlink():
            path.unlink(missing_ok=True)


def delete_tree(path: Path) -> None:
    """Delete a tree that has no name of a release any more, as far as possible."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        # a release may hold directories without the right to write
        Path(folder).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def check_room(root: Path, manifest: Manifest, download: int, min_free: int) -> None:
    """Check that the release fits beside everything else, before anything is written.

    Counts the whole tree: links and reflinks may save most of it, but cannot be
    relied on.

    Args:
        root: the install root.
        manifest: the release.
        download: bytes still to be downloaded; counted as if they went to the same
            file system.
        min_free: bytes that must stay free.

    Raises:
        DiskFullError: too few bytes or inodes.
    """
    found = os.statvfs(root)
    block = found.f_frsize
    tree = sum(
        -(-entry.length // block) * block
        for entry in manifest.files
        if isinstance(entry, File)
    )
    need, free = tree + download + min_free, found.f_bavail * block
    if need > free:
        raise DiskFullError(
            f"{root}: {manifest.version} needs {format_bytes(tree + download)} and "
            f"{format_bytes(min_free)} must stay free; there are {format_bytes(free)}",
            means="nothing was changed; the installed release goes on running",
            do="free disk space, or lower download.min_free",
        )
    inodes = len(manifest.files) + _folders(manifest) + _SPARE_INODES
    # some file systems (btrfs) make inodes as needed and report none
    if found.f_files and inodes > found.f_favail:
        raise DiskFullError(
            f"{root}: {manifest.version} needs {inodes} inodes, "
            f"{found.f_favail} are free",
            means="nothing was changed; the installed release goes on running",
            do="delete files that are not needed",
            code="no_inodes",
        )


def _folders(manifest: Manifest) -> int:
    return len({entry.path.rpartition("/")[0] for entry in manifest.files})


def look(root: Path) -> Disk:
    """Return what is on disk, as `core/recovery` wants to know it."""
    folder = releases(root)
    try:
        whole = frozenset(
            path.name
            for path in folder.iterdir()
            if _is_label(path.name) and path.is_dir()
        )
    except OSError:
        whole = frozenset()
    kind, running = _named(root, root / "current")
    _, previous = _named(root, root / "previous")
    return Disk(current=kind, running=running, whole=whole, previous=previous)


def _named(root: Path, link: Path) -> tuple[Link, str | None]:
    """Return what stands at `link`, and the release it names."""
    if not link.is_symlink():
        return (Link.OCCUPIED if link.exists() else Link.ABSENT), None
    target = link.readlink()
    if target.is_absolute() and target.is_relative_to(root):
        target = target.relative_to(root)
    parts = target.parts
    if len(parts) != 2 or parts[0] != "releases" or not _is_label(parts[1]):
        # to nowhere: what stood there is gone, nothing can run from it
        return (Link.FOREIGN if link.exists() else Link.ABSENT), None
    return (Link.RELEASE if link.is_dir() else Link.DANGLING), parts[1]


def _is_label(name: str) -> bool:
    """Tell whether a release could have this name: others are not updaterd's."""
    return not name.startswith(".") and name.isprintable()  # bytes that are no text


def saved_manifests(root: Path, versions: Iterable[str]) -> dict[str, bytes]:
    """Return the listings kept beside the releases, for those that have one."""
    found = {}
    for version in versions:
        try:
            found[version] = manifest_path(root, version).read_bytes()
        except OSError:
            continue
    return found


def failure(error: OSError, what: str) -> UpdaterError:
    """Return what a refusal of the disk means: no room, or a person is needed."""
    import errno  # noqa: PLC0415 - only when something failed

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"{what}: {error.strerror}",
            means="the installed release goes on running",
            do="free disk space; the next run goes on",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return BrokenError(
            f"{what}: {error.filename or ''}: {error.strerror}",
            means="updates cannot be written there; the installed release goes on",
            do="mount it writable, or correct its owner and permissions",
            code="not_writable",
        )
    return TransientError(
        f"{what}: {error}",
        means="the installed release goes on running",
        do="see the kernel's log for disk errors",
        code="disk_error",
    )
