# SPDX-License-Identifier: Apache-2.0
"""Which files are matched with which: groups that fit in memory.

Matching takes several times its input, so not everything is matched with everything.
Short files are matched together, with all short old ones and the long ones of a kind
that is among them (`.js`); they come last in the stream. A long file is matched with
its old self (same path, else same name, else one of like name and size), and with the
new files like it that come before it in the stream: programs that share code change
in the same way. A long file that is no program is matched with other files of its
kind too: what is bundled from many sources moves from one to the other. A file beyond
the limit is cut, and each piece matched with the old bytes around the same place.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice

from updaterd.artifact.script import LONG
from updaterd.core.manifest import File
from updaterd.release.bundles.matching import Cover

_MORE = 2  # times all old bytes, that are matched with again
_MANY = 1 << 16  # paths whose kind is kept: each is asked for by every long file
_WHOLE = 0.95  # of a file's length: what it had it has still, mostly


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
    folder, name = os.path.split(file.path)

    def same_kind(one: File) -> bool:
        return _kind(one.path) == _kind(file.path)

    def like(one: File) -> bool:
        return same_kind(one) and _alike(one, file)

    def same_stem(one: File) -> bool:
        return _stem(one.path) == _stem(file.path) and like(one)

    ranked = (
        lambda one: one.path == file.path,
        lambda one: os.path.basename(one.path) == name,
        lambda one: os.path.dirname(one.path) == folder and same_stem(one),
        same_stem,
        like,
        same_kind,
    )
    for fits in ranked:
        found = [index for index, one in enumerate(old) if fits(one)]
        if found:
            return min(found, key=lambda i: abs(old[i].length - file.length))
    return None


@lru_cache(maxsize=_MANY)
def _stem(path: str) -> str:
    """Return a name up to its first dot, dash or underscore.

    What bundlers add behind it, a hash of the content, is another in each release.
    """
    return re.split("[-._]", os.path.basename(path), maxsplit=1)[0]


@lru_cache(maxsize=_MANY)
def _kind(path: str) -> str:
    """Return what a name ends with, without the version behind it (`lib.so.1.2`)."""
    return os.path.splitext(re.sub(r"(\.\d+)+$", "", path))[1]


def _alike(one: File, other: File) -> bool:
    return one.length <= 2 * other.length and other.length <= 2 * one.length


def groups(
    old: Sequence[File],
    made: Sequence[File],
    limit: int,
    bundled: Collection[str] = (),
) -> tuple[tuple[Group, ...], tuple[int, ...]]:
    """Return the groups in stream order, and the made files that they read.

    Args:
        old: source files, in virtual order.
        made: files to make, in stream order.
        limit: bytes to match with at a time.
        bundled: paths of long made files whose bytes may come from any old file of
            their kind. All together they are matched with twice the old bytes more.
    """
    old_at = list(accumulate((file.length for file in old), initial=0))
    new_at = list(accumulate((file.length for file in made), initial=0))
    count = sum(file.length >= LONG for file in made)
    partners = [_partner(file, old) for file in made[:count]]
    similar = {
        index: _similar(index, made, partners, old, limit) for index in range(count)
    }
    share = _MORE * old_at[-1] // max(1, len(bundled))
    others: dict[int, set[int]] = {}
    for index in range(count):
        if made[index].path in bundled:
            others[index] = _others(
                index, made, partners, old, similar[index], share, limit
            )
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
        partner = partners[index]
        mine = others.get(index, set()) | (set() if partner is None else {partner})
        pieces = [(old_at[one], old[one].length) for one in sorted(mine)]
        pieces += [virtual[other] for other in similar[index]]
        out += _cut((new_at[index], made[index].length), pieces, limit)
    again = _again(made, partners, shared, old)
    pieces = [
        (old_at[one], file.length)
        for one, file in enumerate(old)
        if file.length < LONG or (_kind(file.path) in kinds and one not in again)
    ]
    pieces += [virtual[index] for index in shared]
    out += _cut((new_at[count], new_at[-1] - new_at[count]), pieces, limit)
    return tuple(out), tuple(places)


def _others(  # noqa: PLR0913, PLR0917 - all that there is to choose from
    index: int,
    made: Sequence[File],
    partners: Sequence[int | None],
    old: Sequence[File],
    similar: list[int],
    share: int,
    limit: int,
) -> set[int]:
    """Return further old files of a long file's kind, the longest first.

    New ones that come before it are added to `similar`, two at most: they may hold the
    same new bytes.

    Args:
        index: of the long file.
        made: files to make.
        partners: of the long ones, the old files they come from.
        old: source files.
        similar: what it is matched with already, besides its old self.
        share: bytes of all further ones.
        limit: bytes of all together.
    """
    file = made[index]
    partner = partners[index]
    taken = sum(made[one].length for one in similar)
    room = min(share, limit - taken - (0 if partner is None else old[partner].length))

    def fits(other: File) -> bool:
        nonlocal room
        fitting = _kind(file.path) == _kind(other.path) != "" and other.length <= room
        room -= other.length if fitting else 0
        return fitting

    before = (one for one in reversed(range(index)) if one not in similar)
    similar += islice((one for one in before if fits(made[one])), 2)
    similar.sort()
    again = {partner, *_again(made, partners, similar, old)}
    longest = sorted(range(len(old)), key=lambda one: (-old[one].length, one))
    return {one for one in longest if one not in again and fits(old[one])}


def _again(
    made: Sequence[File],
    partners: Sequence[int | None],
    places: Iterable[int],
    old: Sequence[File],
) -> set[int]:
    """Return the old selves of made files, unless something went from there.

    Whoever is matched with the new file needs the old one no more, and what is there
    twice takes the matcher as long as all the rest. A file that became shorter may have
    lost what another one got.
    """
    found = ((made[place], partners[place]) for place in places)
    return {
        one
        for file, one in found
        if one is not None and file.length >= old[one].length * _WHOLE
    }


def _similar(
    index: int,
    made: Sequence[File],
    partners: Sequence[int | None],
    old: Sequence[File],
    limit: int,
) -> list[int]:
    """Return up to two long files before this one that it may share changes with."""
    partner = partners[index]
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
