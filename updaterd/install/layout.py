# SPDX-License-Identifier: Apache-2.0
"""What stands where below an install root; only `private` and `mark` change anything.

    releases/VERSION/            a whole release; see `stage` and `activate`
    .unmanaged/                  what others installed, with `releases` in another mount
    releases/.beside-VERSION/    the same, while VERSION itself is replaced: `beside`
    .updaterd/                   0700, updaterd's own, in the same mount as `releases`
        stage-*, trash-*         trees being built, trees on their way out
        manifests/VERSION.json   the signed listing of releases/VERSION
        deleting-VERSION         releases/VERSION is not whole any more: what is left
                                 of it could not be moved, and is deleted in place

A tree becomes a release by one rename, and nothing can be renamed from one mount into
another. So where something is mounted on `releases`, or on `.updaterd`, updaterd's own
directory is `releases/.updaterd`.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from updaterd import durable
from updaterd.core.manifest import MAX_BYTES
from updaterd.core.recovery import Disk, Link
from updaterd.errors import BrokenError
from updaterd.files import regular, volumes

PRIVATE = ".updaterd"
BESIDE = ".beside-"
OTHERS = ".unmanaged"
"""What others installed, where it cannot be moved into `releases`; see `activate`."""
_DELETING = "deleting-"


def releases(root: Path) -> Path:
    """Return where whole releases stand."""
    return root / "releases"


def places(root: Path) -> tuple[Path, ...]:
    """Return the directories that are, or once were, updaterd's own; the first is.

    A file system that is mounted on `releases` later leaves one behind.
    """
    both = (root / PRIVATE, releases(root) / PRIVATE)
    folders = [place for place in both if place.is_dir() and not place.is_symlink()]
    return tuple(sorted(folders, key=lambda place: not _suits(place, root)))


def private(root: Path) -> Path:
    """Return updaterd's own directory under `root`, made when it is missing.

    Raises:
        BrokenError: another user's, or not a directory: what is built in there
            could be changed after it was verified. Or something is mounted on it.
        OSError: the disk refused.

    Power cut: the directory is there, empty, or not.
    """
    durable.make_dir(root)
    durable.make_dir(releases(root))
    path = own(root if volumes.same(root, releases(root)) else releases(root))
    if not _suits(path, root):  # something is mounted on it
        path = own(releases(root))
    if not _suits(path, root):
        raise BrokenError(
            f"something is mounted on {path}",
            means="no release can be moved from there to its place",
            do="unmount it",
            code="unsafe_staging",
        )
    durable.make_dir(path / "manifests", mode=0o700)
    return path


def own(folder: Path) -> Path:
    """Return the directory of ours in `folder`, made when it is missing.

    Raises:
        BrokenError: see `private`.
        OSError: the disk refused.

    Power cut: the directory is there, empty, or not.
    """
    path = folder / PRIVATE
    if not os.path.lexists(path):
        durable.make_dir(path, mode=0o700)
    fd = -1
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(fd)
        if status.st_uid == os.geteuid():
            if status.st_mode & 0o077:
                os.fchmod(fd, 0o700)
            return path
    except (NotADirectoryError, PermissionError):
        pass
    finally:
        if fd >= 0:
            os.close(fd)
    raise BrokenError(
        f"{path} is not a directory of this user",
        means="another user could change a release after it was verified",
        do=f"remove {path}; updaterd makes it anew",
        code="unsafe_staging",
    )


def _suits(place: Path, root: Path) -> bool:
    """Tell whether a tree can be moved from a directory of ours to `releases`."""
    try:
        return volumes.same(place, releases(root))
    except OSError:
        return False


def manifest_path(root: Path, version: str) -> Path:
    """Return where the listing of a release is kept, for a day without a journal."""
    paths = [place / "manifests" / f"{version}.json" for place in places(root)]
    return next(
        (path for path in paths if path.exists()),
        paths[0] if paths else root / PRIVATE / "manifests" / f"{version}.json",
    )


def saved_manifests(root: Path, versions: Iterable[str]) -> dict[str, bytes]:
    """Return the listings kept beside the releases, for those that have one."""
    listings = {}
    for version in versions:
        try:
            listings[version] = regular.read(manifest_path(root, version), MAX_BYTES)
        except OSError:
            continue
    return listings


def mark(root: Path, version: str) -> None:
    """Note that `releases/VERSION` is about to be deleted in place.

    Raises:
        OSError: the disk refused; it is whole.

    Power cut: it is whole and not marked, or marked and no release any more.
    """
    durable.write_file(private(root) / f"{_DELETING}{version}", b"")


def unmark(root: Path, version: str) -> None:
    """Note that nothing is left of what stood at `releases/VERSION`.

    Raises:
        OSError: the disk refused.

    Power cut: as `durable.remove`.
    """
    for place in places(root):
        durable.remove(place / f"{_DELETING}{version}")


def marked(root: Path) -> frozenset[str]:
    """Return the versions of which only a part may be left."""
    return frozenset(
        path.name.removeprefix(_DELETING)
        for place in places(root)
        for path in place.glob(f"{_DELETING}*")
    )


def look(root: Path) -> Disk:
    """Return what is on disk, as `core/recovery` wants to know it."""
    broken = marked(root)
    try:
        whole = frozenset(
            path.name
            for path in releases(root).iterdir()
            if _is_label(path.name) and path.is_dir() and path.name not in broken
        )
    except OSError:
        whole = frozenset()
    kind, running = _named(root, root / "current", broken)
    _, previous = _named(root, root / "previous", broken)
    return Disk(current=kind, running=running, whole=whole, previous=previous)


def _named(root: Path, link: Path, broken: frozenset[str]) -> tuple[Link, str | None]:
    """Return what stands at `link`, and the release it names."""
    if not link.is_symlink():
        return (Link.OCCUPIED if link.exists() else Link.ABSENT), None
    target = link.readlink()
    if target.is_absolute() and target.is_relative_to(root):
        target = target.relative_to(root)
    parts = target.parts
    beside = len(parts) == 2 and parts[1].startswith(BESIDE)
    version = parts[1].removeprefix(BESIDE) if len(parts) == 2 else ""
    if len(parts) != 2 or parts[0] != "releases" or not _is_label(version):
        # to nowhere: what stood there is gone, nothing can run from it
        return (Link.FOREIGN if link.exists() else Link.ABSENT), None
    is_whole = link.is_dir() and (beside or version not in broken)
    return (Link.RELEASE if is_whole else Link.DANGLING), version


def _is_label(name: str) -> bool:
    """Tell whether a release could have this name: others are not updaterd's."""
    # bytes that are no text do not print
    return bool(name) and not name.startswith(".") and name.isprintable()
