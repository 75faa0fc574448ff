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
            new_at, old_at, rest = new, old, count
            while rest:
                index = bisect_right(starts, old_at) - 1
                size = min(rest, starts[index + 1] - old_at)
                virtual = self.pieces[index][0] + old_at - starts[index]
                out.append((self.start + new_at, virtual, size))
                new_at, old_at, rest = new_at + size, old_at + size, rest - size
        return out


def _partner(file: File, old: Sequence[File]) -> int | None:
    """Return the index of the old file that a new one most likely comes from."""
    folder, name = os.path.split(file.path)

    def same_kind(other: File) -> bool:
        return _kind(other.path) == _kind(file.path)

    def like(other: File) -> bool:
        return same_kind(other) and _alike(other, file)

    def same_stem(other: File) -> bool:
        return _stem(other.path) == _stem(file.path) and like(other)

    ranked = (
        lambda other: other.path == file.path,
        lambda other: os.path.basename(other.path) == name,
        lambda other: os.path.dirname(other.path) == folder and same_stem(other),
        same_stem,
        like,
        same_kind,
    )
    for fits in ranked:
        fitting = [index for index, other in enumerate(old) if fits(other)]
        if fitting:
            return min(fitting, key=lambda i: abs(old[i].length - file.length))
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


def _alike(first: File, second: File) -> bool:
    return first.length <= 2 * second.length and second.length <= 2 * first.length


def groups(  # noqa: PLR0913 - files, and what is known of them
    old: Sequence[File],
    targets: Sequence[File],
    limit: int,
    bundled: Collection[int] = (),
    long: int | None = None,
    *,
    programs: Collection[int] = (),
    whole: int = 0,
) -> tuple[tuple[Group, ...], tuple[int, ...]]:
    """Return the groups in stream order, and the made files that they read.

    Args:
        old: source files, in virtual order.
        targets: files to make, in stream order.
        limit: bytes to match with at a time.
        bundled: places of long made files whose bytes may come from any old file of
            their kind. All together they are matched with twice the old bytes more.
        programs: places of long made files that are matched whole, up to `whole`.
        whole: bytes of theirs.
        long: how many of the targets are matched by themselves, if not those of at
            least `LONG` bytes; they come first.
    """
    old_at = list(accumulate((file.length for file in old), initial=0))
    new_at = list(accumulate((file.length for file in targets), initial=0))
    count = sum(file.length >= LONG for file in targets) if long is None else long
    partners = [_partner(file, old) for file in targets[:count]]
    similar = {
        index: _similar(index, targets, partners, old, limit) for index in range(count)
    }
    share = _MORE * old_at[-1] // max(1, len(bundled))
    others: dict[int, set[int]] = {}
    for index in range(count):
        if index in bundled:
            others[index] = _others(
                index, targets, partners, old, similar[index], share, limit
            )
    kinds = {_kind(file.path) for file in targets[count:]} - {""}
    shared = [index for index in range(count) if _kind(targets[index].path) in kinds]
    places = sorted({
        *shared,
        *(number for numbers in similar.values() for number in numbers),
    })
    virtual = {}
    at = old_at[-1]
    for place in places:
        virtual[place] = (at, targets[place].length)
        at += targets[place].length
    out: list[Group] = []
    for index in range(count):
        partner = partners[index]
        old_numbers = others.get(index, set()) | (
            set() if partner is None else {partner}
        )
        pieces = [
            (old_at[number], old[number].length) for number in sorted(old_numbers)
        ]
        pieces += [virtual[other] for other in similar[index]]
        most = max(limit, whole) if index in programs else limit
        out += _cut((new_at[index], targets[index].length), pieces, most)
    again = _again(targets, partners, shared, old)
    pieces = [
        (old_at[number], file.length)
        for number, file in enumerate(old)
        if file.length < LONG or (_kind(file.path) in kinds and number not in again)
    ]
    pieces += [virtual[index] for index in shared]
    out += _cut((new_at[count], new_at[-1] - new_at[count]), pieces, limit)
    return tuple(out), tuple(places)


def _others(  # noqa: PLR0913, PLR0917 - all that there is to choose from
    index: int,
    targets: Sequence[File],
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
        targets: files to make.
        partners: of the long ones, the old files they come from.
        old: source files.
        similar: what it is matched with already, besides its old self.
        share: bytes of all further ones.
        limit: bytes of all together.
    """
    file = targets[index]
    partner = partners[index]
    matched = sum(targets[number].length for number in similar)
    room = min(share, limit - matched - (0 if partner is None else old[partner].length))

    def fits(other: File) -> bool:
        nonlocal room
        fitting = _kind(file.path) == _kind(other.path) != "" and other.length <= room
        room -= other.length if fitting else 0
        return fitting

    before = (number for number in reversed(range(index)) if number not in similar)
    similar += islice((number for number in before if fits(targets[number])), 2)
    similar.sort()
    again = {partner, *_again(targets, partners, similar, old)}
    longest = sorted(range(len(old)), key=lambda number: (-old[number].length, number))
    return {number for number in longest if number not in again and fits(old[number])}


def _again(
    targets: Sequence[File],
    partners: Sequence[int | None],
    places: Iterable[int],
    old: Sequence[File],
) -> set[int]:
    """Return the old selves of made files, unless something went from there.

    Whoever is matched with the new file needs the old one no more, and what is there
    twice takes the matcher as long as all the rest. A file that became shorter may have
    lost what another one got.
    """
    pairs = ((targets[place], partners[place]) for place in places)
    return {
        partner
        for file, partner in pairs
        if partner is not None and file.length >= old[partner].length * _WHOLE
    }


def _similar(
    index: int,
    targets: Sequence[File],
    partners: Sequence[int | None],
    old: Sequence[File],
    limit: int,
) -> list[int]:
    """Return up to two long files before this one that it may share changes with."""
    partner = partners[index]
    room = limit - (old[partner].length if partner is not None else 0)
    similar: list[int] = []
    for other in range(index - 1, -1, -1):
        room_then = room - targets[other].length
        if (
            len(similar) < 2
            and room_then >= 0
            and _alike(targets[other], targets[index])
        ):
            similar.insert(0, other)
            room = room_then
    return similar


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
