# SPDX-License-Identifier: Apache-2.0
"""Compare a tree on disk with its listing, closed: what is not listed is wrong."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from updaterd.artifact.apply.old_files import digest, open_at
from updaterd.artifact.folders import Folders
from updaterd.core.attributes import Attributes
from updaterd.core.dataclass import dataclass
from updaterd.core.manifest import Entry, File, Link
from updaterd.files import volumes


@dataclass(frozen=True, slots=True)
class Problem:
    """One path that is not as listed, and in what way."""

    path: str
    difference: str


def verify_tree(
    root: Path,
    files: Sequence[Entry],
    more: Attributes | None = None,
    *,
    loose: bool = False,
) -> tuple[Problem, ...]:
    """Return every difference between the tree at `root` and its listing.

    Contents, modes, link targets, and anything that should not be there. Links are
    never followed; a place where another file system is mounted is a difference, and
    what is in that is not looked for.

    Args:
        root: of the tree.
        files: the listing.
        more: what else the release carries; None: nothing else may be there.
        loose: it need not be there, and times and folders' modes may differ: a tree
            that an older updaterd made.

    Raises:
        OSError: `root` itself cannot be opened.
    """
    differing = []
    rights = {right.path: right.mode for right in more.special} if more else {}
    with Folders(root) as folders:
        for entry in files:
            mode = rights.get(entry.path) if rights else None
            difference = _compare(folders, entry, mode, loose=loose)
            if difference:
                differing.append(Problem(entry.path, difference))
        listed = {entry.path for entry in files}
        parents = {""}
        if more is not None:
            listed |= {link.path for link in more.outside}
            parents |= {folder.path for folder in more.folders}
            if not loose:
                differing += _compare_more(folders, files, more, rights)
        for path in (*listed, *parents):
            cut = path.rfind("/")
            while cut > 0 and path[:cut] not in parents:
                parents.add(path[:cut])
                cut = path.rfind("/", 0, cut)
        differing += [
            Problem(item.path, item.why or "is not part of the release")
            for item in volumes.walk(folders.top, parents.__contains__)
            if not item.entered and item.path not in listed
        ]
    base = os.path.realpath(root)
    for place in volumes.mounted_below(Path(base)):
        path = os.path.relpath(place, base)
        inside = "" if path == "." else f"{path}/"
        # whatever else is wrong there is wrong because of it
        differing = [
            p for p in differing if p.path != path and not p.path.startswith(inside)
        ]
        differing.append(Problem(path, volumes.WHY))
    return tuple(sorted(differing, key=lambda problem: problem.path))


def damage(problems: Sequence[Problem], files: Sequence[Entry]) -> tuple[Problem, ...]:
    """Leave out what is mounted where it hides nothing of the release.

    A volume that its owner mounted in a release is none of ours to judge, and no reason
    not to run it.
    """
    mounted = {
        problem.path for problem in problems if problem.difference == volumes.WHY
    }
    for entry in files if mounted else ():
        path = entry.path
        while path:
            mounted.discard(path)
            path = path.rpartition("/")[0]
    return tuple(problem for problem in problems if problem.path not in mounted)


def _compare_more(
    folders: Folders,
    files: Sequence[Entry],
    more: Attributes,
    rights: Mapping[str, int],
) -> Iterator[Problem]:
    """Yield what is wrong with what the listing does not say."""
    for link in more.outside:
        if difference := _compare(folders, link):
            yield Problem(link.path, difference)
    for place, entry in enumerate(files if more.times else ()):
        status = _status(folders, entry.path)
        if status is not None and int(status.st_mtime) != more.time_of(place):
            yield Problem(entry.path, "has another time")
    for folder in more.folders:
        status = _status(folders, folder.path)
        if status is None or not stat.S_ISDIR(status.st_mode):
            yield Problem(folder.path, "is not a directory")
        elif (now := stat.S_IMODE(status.st_mode)) != (
            mode := rights.get(folder.path, folder.mode)
        ):
            yield Problem(folder.path, f"has mode {now:o}, not {mode:o}")


def _status(folders: Folders, path: str) -> os.stat_result | None:
    try:
        directory, name = folders.parent(path)
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None


def _compare(
    folders: Folders, entry: Entry, special: int | None = None, *, loose: bool = False
) -> str:
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
    now, expected = stat.S_IMODE(status.st_mode), special or entry.mode
    if now != expected and not (loose and now == entry.mode):
        return f"has mode {now:o}, not {expected:o}"
    return _content(directory, name, entry, status.st_size)


def _content(directory: int, name: str, entry: File, size: int) -> str:
    if size != entry.length:
        return f"has {size} bytes, not {entry.length}"
    try:
        fd = open_at(directory, name)
        try:
            return "" if digest(fd) == entry.sha256 else "has other contents"
        finally:
            os.close(fd)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
