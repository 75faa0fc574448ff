# SPDX-License-Identifier: Apache-2.0
"""What a release carries beside its listing: folders, times, links to the outside.

All of it stands in members of the manifest that need not be there, and outside of the
tree id: an updaterd that knows none of them makes the same tree of files, with folders
0755, without empty ones, and with the times of its making. Links to the outside are
different: without them a tree is another one, so they must be understood.
"""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat
from operator import attrgetter

from updaterd.core.dataclass import dataclass
from updaterd.core.frozen import record
from updaterd.core.json_fields import Fields
from updaterd.core.special import Special
from updaterd.core.tree import (
    MAX_PATH,
    MODE_MASK,
    Entry,
    File,
    Link,
    check_path,
    unseen,
)
from updaterd.errors import MalformedError

FOLDER_MODE = 0o755
"""Mode of a folder that no release says anything about."""
MEMBERS = ("folders", "outside", "special", "times")
_NEEDED = 0o500  # of a folder: machines enter and read it to verify what is in it
LAST_TIME = 2**34
"""Latest time that a file may have, in Unix seconds: the year 2514."""
_WEIGHT = 160


@record
class Folder:
    """A directory that is empty, or whose mode is not 0755."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What a release carries beside its listing.

    Attributes:
        folders: the empty ones, and those whose mode is not 0755.
        outside: links that are absolute, or lead out of the tree.
        special: files and folders with rights that no listing has.
        times: when each entry of the listing was last changed, in the order of their
            paths, in Unix seconds; one for all of them; or none.
    """

    folders: tuple[Folder, ...] = ()
    outside: tuple[Link, ...] = ()
    special: tuple[Special, ...] = ()
    times: Sequence[int] = ()

    def members(self) -> dict[str, object]:
        """Return the manifest's members that say so."""
        document: dict[str, object] = {}
        if self.folders:
            document["folders"] = [
                {"path": f.path, "mode": f.mode} for f in self.folders
            ]
        if self.outside:
            document["outside"] = [
                {"path": link.path, "symlink": link.target} for link in self.outside
            ]
        if self.special:
            document["special"] = [
                {"path": s.path, "mode": s.mode} for s in self.special
            ]
        if self.times:
            document["times"] = list(self.times)
        return document

    @property
    def must_understand(self) -> tuple[str, ...]:
        """Return the members without which the tree would be another one."""
        return tuple(name for name in ("outside", "special") if getattr(self, name))

    def time_of(self, place: int) -> int | None:
        """Return the time of an entry by its place in the listing, if it has one."""
        if not self.times:
            return None
        return self.times[0 if len(self.times) == 1 else place]

    def each_time(self, count: int) -> Iterable[int | None]:
        """Return the times of all entries of a listing of so many, in its order."""
        if len(self.times) > 1:
            return self.times
        return repeat(self.times[0] if self.times else None, count)


NONE = Attributes()
"""Of a release that carries nothing beside its listing."""


def weight(item: Folder | Link | Special) -> int:
    """Return about how many bytes a folder or link takes in memory."""
    target = item.target if isinstance(item, Link) else ""
    return _WEIGHT + 4 * len(item.path) + 4 * len(target)


def folder(item: Fields) -> Folder:
    """Return a folder.

    Raises:
        MalformedError: its path or mode is one that no release may have.
    """
    path = check_path(item.text("path", longest=MAX_PATH))
    return Folder(path, check_folder_mode(path, item.integer("mode", high=0o7777)))


def check_folder_mode(path: str, mode: int) -> int:
    """Return the mode when a folder of a release may have it.

    Raises:
        MalformedError: others could write there, or its owner not read it.
    """
    if mode & ~MODE_MASK or mode & _NEEDED != _NEEDED:
        raise MalformedError(
            f"folder {path!r:.80} has mode {mode:o}: its owner must be able to read "
            "and enter it, and nobody else to write there",
            code="bad_mode",
        )
    return mode


def outside(item: Fields) -> Link:
    """Return a link to the outside.

    Raises:
        MalformedError: its path or target is one that no link may have.
    """
    path = check_path(item.text("path", longest=MAX_PATH))
    target = item.text("symlink", longest=MAX_PATH)
    if not target or unseen(target):
        raise MalformedError(
            f"link {path!r:.80} has no target, or one that no reader sees",
            code="bad_link",
        )
    return Link(path, target)


def times(values: Iterator[object], where: str) -> "array[int]":
    """Return the times that a manifest lists.

    Raises:
        MalformedError: one of them is none.
    """
    seconds = array("q")
    for value in values:
        if type(value) is not int or not 0 <= value <= LAST_TIME:
            raise MalformedError(f"{where}: `times` holds something else than times")
        seconds.append(value)
    return seconds


def check_attributes(files: Sequence[Entry], attributes: Attributes) -> None:
    """Check that attributes and listing describe one possible tree.

    Args:
        files: the listing, checked by itself and sorted by path.
        attributes: the attributes.

    Raises:
        MalformedError: they do not.
    """
    if len(attributes.times) not in (0, 1, len(files)):
        raise MalformedError(
            f"{len(attributes.times)} times for {len(files)} files and links"
        )
    links = sorted(item.path for item in attributes.outside)
    folders = sorted(item.path for item in attributes.folders)
    tree = [item.path for item in files] if links or folders else []
    for path in (*links, *folders):
        # A link is in nobody's way, and a folder only where the tree has none.
        if _stands(tree, path) or any(
            _stands(tree, above) or _stands(links, above) for above in _above(path)
        ):
            raise MalformedError(
                f"{path!r:.80} stands twice in the tree", code="bad_path"
            )
    for path in links:
        if _stands(folders, path) or _is_above(tree, path):
            raise MalformedError(
                f"{path!r:.80} is both a link and a directory", code="bad_path"
            )
    _check_special(files, attributes)
    if len(set(links)) < len(links) or len(set(folders)) < len(folders):
        raise MalformedError("a folder or link stands twice", code="bad_path")


def _check_special(files: Sequence[Entry], attributes: Attributes) -> None:
    """Check that what has special rights is in the tree, with the mode besides.

    Raises:
        MalformedError: something has not.
    """
    if not attributes.special:
        return
    special = {item.path: item.mode for item in attributes.special}
    modes = {
        item.path: item.mode for item in attributes.folders if item.path in special
    }
    modes |= {
        e.path: e.mode for e in files if isinstance(e, File) and e.path in special
    }
    wrong = [
        path for path, mode in special.items() if modes.get(path) != mode & MODE_MASK
    ]
    if wrong or len(special) < len(attributes.special):
        raise MalformedError(
            f"{[*wrong, ''][0]!r:.80} has a special mode that does not fit the tree",
            code="bad_mode",
        )


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _stands(paths: Sequence[str], path: str) -> bool:
    place = bisect_left(paths, path)
    return place < len(paths) and paths[place] == path


def _is_above(paths: Sequence[str], path: str) -> bool:
    """Tell whether one of the paths, which are sorted, is below a path."""
    place = bisect_left(paths, path + "/")
    return place < len(paths) and paths[place].startswith(path + "/")


def leads_to(link: Link, place: str) -> str:
    """Return the absolute path that a link to the outside names.

    Args:
        link: the link.
        place: where its tree stands, an absolute path without links.
    """
    folder_ = link.path.rpartition("/")[0]
    start = "" if link.target.startswith("/") else f"{place}/{folder_}"
    parts = [part for part in start.split("/") if part]
    for part in link.target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def not_allowed(
    links: Sequence[Link], place: str, allowed: Collection[str]
) -> tuple[Link, str] | None:
    """Return the first link that leads where the owner allows none, and whereto.

    A target with `..` behind the name of anything else could be led astray by a link
    on its way, so it is not allowed at all.

    Args:
        links: to the outside.
        place: where their tree stands, an absolute path without links.
        allowed: absolute paths; a link may lead to one of them, or below it.
    """
    for link in sorted(links, key=attrgetter("path")):
        to = leads_to(link, place)
        straight = ".." not in link.target.lstrip("./").split("/")
        if not straight or not any(
            to == folder or to.startswith(folder.rstrip("/") + "/")
            for folder in allowed
        ):
            return link, to
    return None
