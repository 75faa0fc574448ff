"""The entries of a tree, and which listings describe one possible tree.

Apart from the manifest that lists them, because the process that opens bundles needs
these only, and starts the faster the less it imports.
"""

from __future__ import annotations

from updaterd.core.records import record
from updaterd.errors import MalformedError

MAX_FILES = 500_000
MODE_MASK = 0o755
"""Bits of a mode that survive: no setuid, no group or world write."""


@record
class File:
    """A regular file: path relative to the tree, sha256, bytes, mode bits."""

    path: str
    sha256: str
    length: int
    mode: int


@record
class Link:
    """A symbolic link: relative, and never leading out of the tree."""

    path: str
    target: str


Entry = File | Link


def check_path(path: str) -> str:
    """Return `path` when it names something inside the tree, in one way only.

    Raises:
        MalformedError: absolute, empty, with `.`, `..`, empty or overlong
            components, a backslash, or a control character.
    """
    parts = path.split("/")
    if (
        not path
        or len(path) > 1024
        or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)
        or "\\" in path
        or any(ord(character) < 32 or ord(character) == 127 for character in path)
    ):
        raise MalformedError(
            f"path {path!r:.80} leaves the tree or is not canonical", code="bad_path"
        )
    return path


def check_link(path: str, target: str) -> str:
    """Return `target` when the link at `path` stays inside the tree.

    Judged by text alone; `check_tree` refuses trees in which a link's own parent
    is a link, so that text and disk agree.

    Raises:
        MalformedError: absolute, empty, leads out of the tree, or not canonical.
    """
    depth = path.count("/")
    parts = target.split("/")
    if not target or len(target) > 1024 or target.startswith("/"):
        raise MalformedError(f"link {path!r:.80} is absolute or empty", code="bad_link")
    for part in parts:
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0 or any(ord(c) < 32 or ord(c) == 127 for c in part):
            raise MalformedError(
                f"link {path!r:.80} leads out of the tree", code="bad_link"
            )
    return target


def check_tree(files: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return the listing when it describes one possible directory tree.

    Raises:
        MalformedError: a path stands twice, or a file or link is also a parent.
    """
    seen = {entry.path for entry in files}
    if len(seen) != len(files):
        raise MalformedError("a path stands twice in the listing", code="bad_path")
    folders: set[str] = set()
    for folder in {path.rpartition("/")[0] for path in seen}:
        above = folder
        while above and above not in folders:
            folders.add(above)
            above = above.rpartition("/")[0]
    both = folders & seen
    if both:
        raise MalformedError(
            f"{min(both)!r:.80} is both a file and a directory", code="bad_path"
        )
    return files
