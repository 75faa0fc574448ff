"""Compare a tree on disk with its listing, closed: what is not listed is wrong."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from updaterd import volumes
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
    never followed; a place where another file system is mounted is a difference, and
    what is in that is not looked for.

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
            Problem(item.path, item.why or "is not part of the release")
            for item in volumes.walk(folders.top, parents.__contains__)
            if not item.entered and item.path not in listed
        ]
    base = os.path.realpath(root)
    for place in volumes.mounted_below(Path(base)):
        path = os.path.relpath(place, base)
        inside = "" if path == "." else f"{path}/"
        # whatever else is wrong there is wrong because of it
        found = [p for p in found if p.path != path and not p.path.startswith(inside)]
        found.append(Problem(path, volumes.WHY))
    return tuple(sorted(found, key=lambda problem: problem.path))


def damage(problems: Sequence[Problem], files: Sequence[Entry]) -> tuple[Problem, ...]:
    """Leave out what is mounted where it hides nothing of the release.

    A volume that its owner mounted in a release is none of ours to judge, and no reason
    not to run it.
    """
    mounted = {problem.path for problem in problems if problem.what == volumes.WHY}
    for entry in files if mounted else ():
        path = entry.path
        while path:
            mounted.discard(path)
            path = path.rpartition("/")[0]
    return tuple(problem for problem in problems if problem.path not in mounted)


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
