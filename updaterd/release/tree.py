# SPDX-License-Identifier: Apache-2.0
"""Read a directory as the listing of a release."""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from updaterd.core.attributes import (
    FOLDER_MODE,
    LAST_TIME,
    Attributes,
    Folder,
    check_attributes,
    check_folder_mode,
)
from updaterd.core.special import Special, bits
from updaterd.core.tree import (
    MODE_MASK,
    Entry,
    File,
    Link,
    check_link,
    check_path,
    check_tree,
    unseen,
)
from updaterd.errors import BrokenError, RejectedError
from updaterd.release.losses import Losses

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """A directory as a release.

    Attributes:
        files: the listing, sorted by path.
        attributes: what else is carried.
        losses: what is not.
        twins: pairs of names that differ only by case.
    """

    files: tuple[Entry, ...]
    attributes: Attributes
    losses: Losses
    twins: tuple[tuple[str, str], ...]

    def case_notes(self, *, strict: bool) -> tuple[str, ...]:
        """Return what to tell of names that differ only by case.

        Raises:
            RejectedError: there are some, and the publisher wants none.
        """
        if not self.twins:
            return ()
        name, other = self.twins[0]
        more = f" (and {len(self.twins) - 1} more)" if len(self.twins) > 1 else ""
        text = f"{name!r:.100} and {other!r:.100} differ only by case{more}"
        if strict:
            raise RejectedError(
                text,
                means="where case does not count (some folders of ext4, FAT) they are "
                "one",
                do="rename one of them, or leave --strict-names away",
                code="bad_path",
            )
        return (f"{text}: one file where case does not count",)


def scan(root: Path) -> tuple[Entry, ...]:
    """Return the listing of the tree at `root`, sorted by path bytes.

    Raises:
        RejectedError: as `survey`.
        BrokenError: something cannot be read.
    """
    return survey(root).files


def survey(
    root: Path,
    *,
    outside_links: bool = False,
    carry: frozenset[str] = frozenset(),
    latest: int | None = None,
) -> Surveyed:
    """Return what the tree at `root` is as a release.

    Files keep the bits of their mode but those that let group or others write, or that
    give away rights. Folders are carried where they are empty or not 0755.

    Args:
        root: the directory.
        outside_links: carry links that are absolute or lead out of the tree.
        carry: kinds of rights to ask machines for (`special.KINDS`).
        latest: files that were changed later are said to be of this time (Unix
            seconds), as SOURCE_DATE_EPOCH means it; None: as it is.

    Raises:
        RejectedError: a socket, device or pipe; a link that leads out of the tree;
            a name or mode that no release may have.
        BrokenError: something cannot be read.
    """
    walk = _Walk(root, outside_links=outside_links, carry=carry)
    try:
        walk.go("")
    except OSError as error:
        raise BrokenError(
            f"{error.filename or root} cannot be read: {error.strerror}",
            do="check the path and its permissions",
            code="unreadable",
        ) from error
    entries = sorted(walk.entries, key=lambda entry: entry.path)
    most = LAST_TIME if latest is None else latest
    times = [min(walk.times[entry.path], most) for entry in entries]
    attributes = Attributes(
        folders=tuple(sorted(walk.folders, key=lambda folder: folder.path)),
        outside=tuple(sorted(walk.outside, key=lambda link: link.path)),
        special=tuple(sorted(walk.special, key=lambda entry: entry.path)),
        times=tuple(times[:1] if len(set(times)) == 1 else times),
    )
    check_tree(entries, outside=frozenset(link.path for link in attributes.outside))
    check_attributes(entries, attributes)
    paths = [entry.path for entry in entries]
    paths += [folder.path for folder in attributes.folders]
    paths += [link.path for link in attributes.outside]
    _check_apart(paths)
    return Surveyed(
        files=tuple(entries),
        attributes=attributes,
        losses=walk.losses,
        twins=_twins(paths),
    )


def _twins(paths: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return pairs of names that are one where case does not count."""
    spellings: dict[str, str] = {}
    pairs: dict[tuple[str, str], None] = {}
    for path in paths:
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            part = "/".join(parts[:count])
            other = spellings.setdefault(part.casefold(), part)
            if other != part:
                pairs[other, part] = None
    return tuple(pairs)


def _check_apart(paths: Sequence[str]) -> None:
    """Check that no two names are one by another spelling of the same characters.

    Raises:
        RejectedError: two are: some file systems take them for the same file, and
            nobody can tell them apart.
    """
    spellings: dict[str, str] = {}
    for whole in paths:
        parts = whole.split("/")
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            if path.isascii():
                continue
            other = spellings.setdefault(unicodedata.normalize("NFC", path), path)
            if other != path:
                raise RejectedError(
                    f"{path!a:.200} and {other!a:.200} are spelled with other code "
                    "points, and look the same",
                    means="some file systems take them for one file",
                    do="rename one of them",
                    code="bad_path",
                )


class _Walk:
    """One way through a directory, in the order of names."""

    def __init__(
        self, root: Path, *, outside_links: bool, carry: frozenset[str]
    ) -> None:
        self._root = root
        self._outside_links = outside_links
        self.entries: list[Entry] = []
        self.times: dict[str, int] = {}
        self.folders: list[Folder] = []
        self.outside: list[Link] = []
        self.special: list[Special] = []
        self._carried = bits(carry)
        self.losses = Losses(carried=carry)

    def go(self, inside: str) -> bool:
        """Take in what is in a directory; tell whether there was anything.

        Raises:
            RejectedError: something that no release may hold.
            OSError: it cannot be read.
        """
        with os.scandir(self._root / inside) as items:
            names = sorted(items, key=lambda item: item.name)
        for item in names:
            path = f"{inside}/{item.name}" if inside else item.name
            try:
                path.encode()
            except UnicodeEncodeError:
                raise RejectedError(
                    f"{os.fsencode(path)!r:.200} is not UTF-8",
                    do="rename it",
                    code="bad_path",
                ) from None
            status = item.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                self._link(_path(path), os.readlink(item.path), status)
            elif stat.S_ISDIR(status.st_mode):
                self.losses.look(item.path, path, status)
                self._folder(path, status)
            elif stat.S_ISREG(status.st_mode):
                self.losses.look(item.path, path, status)
                self.entries.append(_file(item.path, _path(path)))
                self.times[path] = _seconds(status)
                self._special(path, status)
            else:
                raise RejectedError(
                    f"{path!r:.200} is neither a file, a directory nor a link",
                    do="take it out of the tree",
                    code="bad_file_type",
                )
        return bool(names)

    def _folder(self, path: str, status: os.stat_result) -> None:
        filled = self.go(path)
        mode = stat.S_IMODE(status.st_mode) & MODE_MASK
        if self._special(path, status) or not filled or mode != FOLDER_MODE:
            self.folders.append(Folder(_path(path), check_folder_mode(path, mode)))

    def _special(self, path: str, status: os.stat_result) -> bool:
        """Take note of rights that are carried; tell whether there are some."""
        mode = stat.S_IMODE(status.st_mode)
        if not mode & self._carried:
            return False
        self.special.append(Special(path, mode & (MODE_MASK | self._carried)))
        return True

    def _link(self, path: str, target: str, status: os.stat_result) -> None:
        try:
            self.entries.append(Link(path, check_link(path, target)))
            self.times[path] = _seconds(status)
        except RejectedError as error:
            if self._outside_links and target and not unseen(target):
                self.outside.append(Link(path, target))
                return
            error.means = (
                f"it points to {target!r:.200}; a link has to stay in the tree"
            )
            error.do = (
                "make it relative and inside, or take it out; --outside-links carries "
                "it to machines whose owners allow where it leads"
            )
            raise


def _seconds(status: os.stat_result) -> int:
    return min(max(0, int(status.st_mtime)), LAST_TIME)


def _path(path: str) -> str:
    unassigned = [c for c in path if unicodedata.category(c) in ("Cn", "Cf")]
    if unassigned:
        raise RejectedError(
            f"{path!a:.200} has the character U+{ord(unassigned[0]):04X}",
            means="no reader sees it, or none knows it yet",
            do="rename it",
            code="bad_path",
        )
    try:
        return check_path(path)
    except RejectedError as error:
        raise RejectedError(
            f"{path!r:.200} is not a name that a release may have",
            means=error.cause,
            do="rename it, or move it up",
            code=error.code,
        ) from error


def _file(real: str, path: str) -> File:
    state = hashlib.sha256()
    length = 0
    fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb", buffering=0) as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & MODE_MASK
        while data := file.read(_PIECE):
            state.update(data)
            length += len(data)
    return File(path, state.hexdigest(), length, mode)
