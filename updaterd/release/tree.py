"""Read a directory as the listing of a release."""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from updaterd.core.manifest import (
    Entry,
    File,
    Link,
    check_link,
    check_path,
    check_tree,
)
from updaterd.errors import BrokenError, RejectedError

_PIECE = 1 << 20


def scan(root: Path) -> tuple[Entry, ...]:
    """Return the listing of the tree at `root`, sorted by path bytes.

    Modes become 0755 when the owner may execute and 0644 otherwise. Empty
    directories are not part of a release.

    Raises:
        RejectedError: a socket, device or pipe; a link that leads out of the tree;
            a name that no release may have.
        BrokenError: something cannot be read.
    """
    try:
        found = sorted(_walk(root, ""), key=lambda entry: entry.path.encode())
    except OSError as error:
        raise BrokenError(
            f"{error.filename or root} cannot be read: {error.strerror}",
            do="check the path and its permissions",
            code="unreadable",
        ) from error
    check_tree(found)
    _check_apart(found)
    return tuple(found)


def _check_apart(entries: Sequence[Entry]) -> None:
    """Check that no two names are one by another spelling of the same characters.

    Raises:
        RejectedError: two are: some file systems take them for the same file, and
            nobody can tell them apart.
    """
    seen: dict[str, str] = {}
    for entry in entries:
        parts = entry.path.split("/")
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            if path.isascii():
                continue
            other = seen.setdefault(unicodedata.normalize("NFC", path), path)
            if other != path:
                raise RejectedError(
                    f"{path!a:.200} and {other!a:.200} are spelled with other code "
                    "points, and look the same",
                    means="some file systems take them for one file",
                    do="rename one of them",
                    code="bad_path",
                )


def _walk(root: Path, inside: str) -> Iterator[Entry]:
    with os.scandir(root / inside) as items:
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
        if item.is_symlink():
            target = os.readlink(item.path)
            yield Link(_path(path), _target(path, target))
        elif item.is_dir():
            yield from _walk(root, path)
        elif item.is_file():
            yield _file(item.path, _path(path))
        else:
            raise RejectedError(
                f"{path!r:.200} is neither a file, a directory nor a link",
                do="take it out of the tree",
                code="bad_file_type",
            )


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
            f"{path!r:.200} is no name that a release may have",
            means=error.what,
            do="rename it, or move it up",
            code=error.code,
        ) from error


def _target(path: str, target: str) -> str:
    try:
        return check_link(path, target)
    except RejectedError as error:
        error.means = f"it points to {target!r:.200}; a link has to stay in the tree"
        error.do = "make it relative and inside, or take it out"
        raise


def _file(real: str, path: str) -> File:
    state = hashlib.sha256()
    length = 0
    fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb", buffering=0) as file:
        executable = os.fstat(file.fileno()).st_mode & stat.S_IXUSR
        while data := file.read(_PIECE):
            state.update(data)
            length += len(data)
    return File(path, state.hexdigest(), length, 0o755 if executable else 0o644)
