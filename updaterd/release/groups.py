"""Which files are matched with which: groups that fit in memory.

Matching takes several times its input, so not everything is matched with everything.
Short files are matched together, with all short old ones and the long ones of a kind
that is among them (`.js`); they come last in the stream. A long file is matched with
its old self (same path, else same name, else the one of like size), and with the new
files like it that come before it in the stream: programs that share code change in
the same way. A file beyond the limit is cut, and each piece matched with the old
bytes around the same place.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from updaterd.artifact.script import LONG
from updaterd.artifact.sources import digest
from updaterd.core.manifest import File
from updaterd.errors import BrokenError
from updaterd.release.matching import Cover
from updaterd.release.reading import Range


@dataclass(frozen=True, slots=True)
class Group:
    """A stretch of the new stream, and the old stretches it is matched with.

    Attributes:
        start: in the new stream.
        length: of it.
        pieces: (virtual start, length) of what it is matched with.
    """

    start: int
    length: int
    pieces: tuple[tuple[int, int], ...]

    def place(self, covers: Sequence[Cover]) -> list[Cover]:
        """Return covers of this group as covers of the whole stream."""
        starts = list(accumulate((size for _, size in self.pieces), initial=0))
        out: list[Cover] = []
        for new, old, count in covers:
            new_at, old_at, left = new, old, count
            while left:
                index = bisect_right(starts, old_at) - 1
                size = min(left, starts[index + 1] - old_at)
                virtual = self.pieces[index][0] + old_at - starts[index]
                out.append((self.start + new_at, virtual, size))
                new_at, old_at, left = new_at + size, old_at + size, left - size
        return out


def _partner(file: File, old: Sequence[File]) -> int | None:
    """Return the index of the old file that a new one most likely comes from."""

    def name(path: str) -> str:
        return path.rsplit("/", 1)[-1]

    ranked = (
        lambda one: one.path == file.path,
        lambda one: name(one.path) == name(file.path),
        lambda one: _kind(one.path) == _kind(file.path) and _alike(one, file),
    )
    for fits in ranked:
        found = [index for index, one in enumerate(old) if fits(one)]
        if found:
            return min(found, key=lambda i: abs(old[i].length - file.length))
    return None


def _kind(path: str) -> str:
    return os.path.splitext(path)[1]


def _alike(one: File, other: File) -> bool:
    return one.length <= 2 * other.length and other.length <= 2 * one.length


def groups(
    old: Sequence[File], made: Sequence[File], limit: int
) -> tuple[tuple[Group, ...], tuple[int, ...]]:
    """Return the groups in stream order, and the made files that they read.

    Args:
        old: source files, in virtual order.
        made: files to make, in stream order.
        limit: bytes to match with at a time.
    """
    old_at = list(accumulate((file.length for file in old), initial=0))
    new_at = list(accumulate((file.length for file in made), initial=0))
    count = sum(file.length >= LONG for file in made)
    similar = {index: _similar(index, made, old, limit) for index in range(count)}
    kinds = {_kind(file.path) for file in made[count:]} - {""}
    shared = [index for index in range(count) if _kind(made[index].path) in kinds]
    places = sorted({*shared, *(one for some in similar.values() for one in some)})
    virtual = {}
    at = old_at[-1]
    for place in places:
        virtual[place] = (at, made[place].length)
        at += made[place].length
    out: list[Group] = []
    for index in range(count):
        pieces = [virtual[other] for other in similar[index]]
        partner = _partner(made[index], old)
        if partner is not None:
            pieces.insert(0, (old_at[partner], old[partner].length))
        out += _cut((new_at[index], made[index].length), pieces, limit)
    pieces = [
        (start, file.length)
        for file, start in zip(old, old_at, strict=False)
        if file.length < LONG or _kind(file.path) in kinds
    ]
    pieces += [virtual[index] for index in shared]
    out += _cut((new_at[count], new_at[-1] - new_at[count]), pieces, limit)
    return tuple(out), tuple(places)


def _similar(
    index: int, made: Sequence[File], old: Sequence[File], limit: int
) -> list[int]:
    """Return up to two long files before this one that it may share changes with."""
    partner = _partner(made[index], old)
    room = limit - (old[partner].length if partner is not None else 0)
    found: list[int] = []
    for other in range(index - 1, -1, -1):
        room_then = room - made[other].length
        if len(found) < 2 and room_then >= 0 and _alike(made[other], made[index]):
            found.insert(0, other)
            room = room_then
    return found


def _cut(
    span: tuple[int, int], pieces: Sequence[tuple[int, int]], limit: int
) -> list[Group]:
    """Return one group, or several when there is more than fits; none of nothing."""
    start, length = span
    pieces = _joined(pieces)
    if not length:
        return []
    size = sum(count for _, count in pieces)
    if size <= limit and length <= limit:
        return [Group(start, length, pieces)]
    # Old bytes around the same place: half of the limit, and a quarter either side.
    step = max(1, limit // 2)
    out = []
    for low in range(0, length, step):
        high = min(length, low + step)
        around = (
            max(0, low * size // length - limit // 4),
            min(size, high * size // length + limit // 4),
        )
        out.append(Group(start + low, high - low, _slice(pieces, *around)))
    return out


def _joined(pieces: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return pieces with neighbours as one."""
    out: list[tuple[int, int]] = []
    for start, count in pieces:
        if out and sum(out[-1]) == start:
            out[-1] = (out[-1][0], out[-1][1] + count)
        elif count:
            out.append((start, count))
    return tuple(out)


def _slice(
    pieces: tuple[tuple[int, int], ...], low: int, high: int
) -> tuple[tuple[int, int], ...]:
    """Return the bytes [low, high) of pieces taken as one."""
    out, at = [], 0
    for start, count in pieces:
        first, last = max(low, at), min(high, at + count)
        if first < last:
            out.append((start + first - at, last - first))
        at += count
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Piece:
    """What a group takes of one file.

    Attributes:
        file: which one.
        range: of its bytes.
        whole: these are all of them.
    """

    file: int
    range: Range
    whole: bool


class Ranges:
    """Where the bytes of groups lie, in both trees; every file is checked once."""

    def __init__(
        self,
        old_root: Path,
        old: Sequence[File],
        new_root: Path,
        made: Sequence[File],
        places: Sequence[int],
    ) -> None:
        """Check the files.

        Args:
            old_root: the old tree.
            old: its sources, in virtual order.
            new_root: the new tree.
            made: files to make, in stream order.
            places: of the made files that follow the old ones in virtual order.

        Raises:
            BrokenError: one is not what its listing says.
        """
        self._made = [(new_root / file.path, file.length) for file in made]
        self._virtual = [(old_root / file.path, file.length) for file in old]
        for (path, _), file in zip(
            (*self._virtual, *self._made), (*old, *made), strict=True
        ):
            _check(path, file)
        self._virtual += [self._made[place] for place in places]

    def old(self, group: Group) -> list[Piece]:
        """Return what a group is matched with; files by place in virtual order."""
        return [one for piece in group.pieces for one in _pieces(self._virtual, *piece)]

    def new(self, group: Group) -> list[Piece]:
        """Return what a group makes; files by place in stream order."""
        return _pieces(self._made, group.start, group.length)


def _pieces(files: Sequence[tuple[Path, int]], at: int, length: int) -> list[Piece]:
    starts = list(accumulate((size for _, size in files), initial=0))
    out = []
    index = bisect_right(starts, at) - 1
    while length:
        path, size = files[index]
        offset = at - starts[index]
        count = min(length, size - offset)
        if count:
            whole = count == size
            out.append(Piece(index, (str(path), offset, count), whole=whole))
        at, length, index = at + count, length - count, index + 1
    return out


def _check(path: Path, file: File) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sound = digest(fd) == file.sha256
    finally:
        os.close(fd)
    if not sound:
        raise BrokenError(
            f"{path} changed while the delta was made",
            do="leave the trees alone while they are pushed",
            code="tree_changed",
        )
