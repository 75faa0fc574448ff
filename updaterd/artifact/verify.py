"""Compare a tree on disk with its listing, closed: what is not listed is wrong."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from updaterd.artifact.folders import Folders
from updaterd.artifact.sources import digest
from updaterd.core.manifest import Entry, File, Link


@dataclass(frozen=True, slots=True)
class Problem:
    """One path that is not as listed, and in what way."""

    path: str
    what: str


def verify_tree(root: Path, files: Sequence[Entry]) -> tuple[Problem, ...]:
    """Return every difference between the tree at `root` and its listing.

    Contents, modes, link targets, and anything that should not be there. Links are
    never followed.

    Raises:
        OSError: `root` itself cannot be opened.
    """
    found = []
    with Folders(root) as folders:
        for entry in files:
            what = _compare(folders, entry)
            if what:
                found.append(Problem(entry.path, what))
        listed = {entry.path for entry in files}
        parents = {""}
        for path in listed:
            cut = path.rfind("/")
            while cut > 0 and path[:cut] not in parents:
                parents.add(path[:cut])
                cut = path.rfind("/", 0, cut)
        found += [
            Problem(path, "is not part of the release")
            for path in _walk(root, "", parents)
            if path not in listed
        ]
    return tuple(sorted(found, key=lambda problem: problem.path))


def _compare(folders: Folders, entry: Entry) -> str:
    """Return what is wrong with one entry, or nothing."""
    try:
        directory, name = folders.parent(entry.path)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return "is missing"
    if isinstance(entry, Link):
        if not stat.S_ISLNK(status.st_mode):
            return "is not a symbolic link"
        target = os.readlink(name, dir_fd=directory)
        return "" if target == entry.target else "points elsewhere"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if stat.S_IMODE(status.st_mode) != entry.mode:
        return f"has mode {stat.S_IMODE(status.st_mode):o}, not {entry.mode:o}"
    return _content(directory, name, entry, status.st_size)


def _content(directory: int, name: str, entry: File, size: int) -> str:
    if size != entry.length:
        return f"has {size} bytes, not {entry.length}"
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            return "" if digest(fd) == entry.sha256 else "has other contents"
        finally:
            os.close(fd)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _walk(root: Path, inside: str, parents: set[str]) -> Iterator[str]:
    """Yield every path that is not a directory the listing implies."""
    names: list[os.DirEntry[str]] = []
    with suppress(OSError), os.scandir(root / inside) as scan:
        names = list(scan)
    for item in names:
        path = f"{inside}/{item.name}" if inside else item.name
        if item.is_dir(follow_symlinks=False) and path in parents:
            yield from _walk(root, path, parents)
        else:
            yield path
