# SPDX-License-Identifier: Apache-2.0
"""The entries of a tree, and which listings describe one possible tree.

Apart from the manifest that lists them, because the bundle opener needs
these only, and starts the faster the less it imports.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter

from updaterd.core.frozen import record
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_FILES = 131_072
"""Most files and links of a tree."""
MAX_MEMORY = 38 * 2**20
"""Most bytes that a listing may take in memory, as `weight` counts them."""
MAX_FOLDERS = 500_000
"""Most directories of a tree."""
MAX_DEPTH = 96
"""Most names of a path: machines keep the chain of directories open, twice."""
MAX_PATH = 1024
"""Most bytes of a path, so that a root before it leaves room to PATH_MAX."""
MAX_NAME = 255
MAX_HOPS = 40
"""Links that Linux follows within one path (path_resolution(7))."""
_FEW = 4  # names of a target that is followed again faster than it is kept
MODE_MASK = 0o755
"""Bits of a listed mode: no setuid, no group or world write."""

# What a terminal obeys, or a reader does not see: C0, DEL and C1; soft hyphen; marks
# and overrides of direction; what has no width; separators of lines and paragraphs;
# fillers, tags and noncharacters. Not by `unicodedata`: a machine with an older Python
# must judge as the publisher does.
_UNSEEN = (
    (0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C),
    (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F),
    (0x2028, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xD800, 0xDFFF),
    (0xFDD0, 0xFDEF), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB),
    (0x13430, 0x1345F), (0x1BCA0, 0x1BCAF), (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
_PLANE_END = 0xFFFE  # as this and the next one, two noncharacters end each plane


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


def unseen(text: str) -> str:
    """Return the first character that no name may have, as "U+202E"; or nothing."""
    if text.isascii() and text.isprintable():
        return ""
    # Not by `re`: in the cage nothing can be imported.
    for number in map(ord, text):
        place = bisect_right(_UNSEEN, (number, 0x110000)) - 1
        is_listed = place >= 0 and number <= _UNSEEN[place][1]
        if is_listed or number & _PLANE_END == _PLANE_END:
            return f"U+{number:04X}"
    return ""


def check_path(path: str) -> str:
    """Return `path` when it names something inside the tree, in one way only.

    Raises:
        MalformedError: absolute, empty, with `.`, `..`, empty or overlong
            components, too deep, a backslash, or a character that nobody sees.
    """
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        raise MalformedError(
            f"path {path!r:.80} is {len(parts)} directories deep, "
            f"machines build {MAX_DEPTH}",
            code="too_deep",
        )
    if not path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise MalformedError(
            f"path {path!r:.80} leaves the tree or is not canonical", code="bad_path"
        )
    if _bytes(path) > MAX_PATH:
        raise MalformedError(
            f"path {path!r:.80} is longer than {MAX_PATH} bytes", code="bad_path"
        )
    if len(path) > MAX_NAME // 4 and any(_bytes(part) > MAX_NAME for part in parts):
        raise MalformedError(
            f"path {path!r:.80} has a name of more than {MAX_NAME} bytes",
            code="bad_path",
        )
    if character := unseen(path):
        raise MalformedError(
            f"path {path!r:.80} has the character {character}, which no reader sees",
            code="bad_path",
        )
    return path


def weight(entry: Entry) -> int:
    """Return about how many bytes an entry takes in memory.

    By the same rule everywhere, whatever the interpreter: what a publisher may push, a
    machine can read.
    """
    path = entry.path
    if isinstance(entry, Link):
        return 160 + _width(path) + _width(entry.target)
    return 290 + (len(path) if path.isascii() else _width(path))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return len(text) * (4 if max(text) > "\uffff" else 2)


def check_weight(room: int) -> None:
    """Check that a listing is not too heavy.

    Args:
        room: bytes that are left of `MAX_MEMORY`.

    Raises:
        MalformedError: none are.
    """
    if room < 0:
        raise MalformedError(
            f"the listing takes more than {MAX_MEMORY // 2**20} MiB of memory: its "
            "names are too many and too long",
            code="too_large",
        )


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def check_link(path: str, target: str) -> str:
    """Return `target` when it could be the target of a link in a tree.

    Where it leads depends on the other links: `check_tree` follows them.

    Raises:
        MalformedError: absolute, empty, too long, with characters that nobody sees,
            or so that it leads out of the tree whatever else is in it.
    """
    if not target or target.startswith("/"):
        raise MalformedError(f"link {path!r:.80} is absolute or empty", code="bad_link")
    if len(target) > MAX_PATH or unseen(target):
        raise MalformedError(
            f"link {path!r:.80} has a target that is too long or has characters "
            "that no reader sees",
            code="bad_link",
        )
    depth = path.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            raise MalformedError(
                f"link {path!r:.80} leads out of the tree", code="bad_link"
            )
    return target


def check_tree(
    files: Sequence[Entry],
    *,
    outside: frozenset[str] = frozenset(),
    heavy: int | None = None,
) -> None:
    """Check that the listing describes one possible, harmless directory tree.

    Every link is followed through the listing's own links, as the kernel would. Takes
    time in proportion to the listing, whatever it says, and next to no memory.

    Args:
        files: the listing.
        outside: paths of links that lead out of the tree; no other may lead through
            one, for it could lead anywhere then.
        heavy: what its entries weigh together, where that is known.

    Raises:
        MalformedError: a path stands twice; a file or link is also a parent; too
            many files or directories, or names too long for all of them; or a link
            leads out of the tree, in a circle, or through more links than Linux
            follows.
    """
    if len(files) > MAX_FILES:
        raise MalformedError(
            f"the tree has more than {MAX_FILES} files and links", code="too_large"
        )
    room = MAX_MEMORY - (sum(map(weight, files)) if heavy is None else heavy)
    check_weight(room)
    path_of = attrgetter("path")
    ordered = sorted(files, key=path_of)
    before, inside, folders = "", "", 0
    for entry in ordered:
        path = entry.path
        if path == before:
            raise MalformedError(
                f"{path!r:.80} stands twice in the listing", code="bad_path"
            )
        # What has one folder stands together, so each is met for the first time once.
        folder = path.rpartition("/")[0]
        if folder == inside:  # as of most
            before = path
            continue
        inside = folder
        for folder in _entered(path, before):
            folders += 1
            if folders > MAX_FOLDERS:
                raise MalformedError(
                    f"the tree has more than {MAX_FOLDERS} directories",
                    code="too_large",
                )
            place = bisect_left(ordered, folder, key=path_of)
            if place < len(ordered) and ordered[place].path == folder:
                raise MalformedError(
                    f"{folder!r:.80} is both a file and a directory", code="bad_path"
                )
        before = path
    del ordered
    Links(
        {e.path: e.target for e in files if isinstance(e, Link)}, room, outside
    ).check()


def _entered(path: str, before: str) -> list[str]:
    """Return the directories of `path` that are none of those of `before`."""
    folders = []
    folder = path.rpartition("/")[0]
    while folder and not before.startswith(folder + "/"):
        folders.append(folder)
        folder = folder.rpartition("/")[0]
    return folders


class Links:
    """The links of a tree, followed as the kernel does.

    Where one leads is kept when it took long to find, so that none is followed often.
    """

    def __init__(
        self,
        targets: Mapping[str, str],
        room: int = MAX_MEMORY,
        outside: frozenset[str] = frozenset(),
    ) -> None:
        """Take the links: targets by path, how many bytes may be kept, and barriers."""
        self._targets = targets
        self._outside = outside
        self._room = room
        self._known: dict[str, tuple[str, int]] = {}

    def check(self) -> None:
        """Follow all of them.

        Raises:
            MalformedError: one leads out of the tree, in a circle, or through too
                many others.
        """
        for path in self._targets:
            self.resolve(path)

    def resolve(self, path: str) -> str:
        """Return where the link at `path` leads: a path of the tree, "" for its root.

        Raises:
            MalformedError: out of the tree, in a circle, or too far.
        """
        return self._follow(path, 0)[0]

    def _follow(self, path: str, nested: int) -> tuple[str, int]:
        """Return where a link leads, and through how many links.

        Raises:
            MalformedError: out of the tree, in a circle, or too far.
        """
        if path in self._known:
            return self._known[path]
        at, hops = path.rpartition("/")[0], 1
        parts = self._targets[path].split("/")
        for part in parts:
            if part == ".." and not at:
                raise MalformedError(
                    f"link {path!r:.80} leads out of the tree", code="bad_link"
                )
            if part == "..":
                at = at.rpartition("/")[0]
            elif part not in ("", "."):
                at = f"{at}/{part}" if at else part
            if at in self._outside:
                raise MalformedError(
                    f"link {path!r:.80} leads through {at!r:.80}, which leads out",
                    code="bad_link",
                )
            if part != ".." and at in self._targets:
                at, more = self._deeper(at, nested)
                hops += more
            if hops > MAX_HOPS or len(at) > 4 * MAX_PATH:
                raise MalformedError(
                    f"link {path!r:.80} leads in a circle, or through more than "
                    f"{MAX_HOPS} links",
                    code="bad_link",
                )
        if hops > 1 or len(parts) > _FEW:
            self._room -= 205 + _width(at)
            check_weight(self._room)
            self._known[path] = at, hops
        return at, hops

    def _deeper(self, path: str, nested: int) -> tuple[str, int]:
        """Follow a link that another one leads through; not for ever."""
        if nested >= MAX_HOPS:
            return "", MAX_HOPS
        return self._follow(path, nested + 1)
