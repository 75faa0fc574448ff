"""Read a directory as the listing of a release."""

import hashlib
import os
import stat
from collections.abc import Iterator
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
    return check_tree(tuple(found))


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
    try:
        return check_path(path)
    except RejectedError as error:
        raise RejectedError(
            f"{path!r:.200} is no name that a release may have",
            means="control characters, backslashes, and overlong names are refused",
            do="rename it",
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
