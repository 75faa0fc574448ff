# SPDX-License-Identifier: Apache-2.0
"""The tree script: how the new listing follows from the old one.

A delta names only what differs; every other entry of the old listing stays. Old
entries are meant by their index in the old listing (sorted by path bytes), new ones
by path. There are no hashes in it: what the operations make is hashed while it is
written, so the listing of the new tree comes out complete and is compared with the
signed one, or its tree id with the signed tree id.

Columns, all numbers varints (docs/formats.md):
    old entries, removed, changed, added, sources, made sources (counts)
    removed: gaps; changed: gaps
    added paths: bytes shared with the one before, further bytes, text
    kind of every item (changed ones first, then added), one byte each
    mode of every item that is a file
    number of every item: length (MADE; of a changed file by how much it differs from
    the old one's, folded), old index (COPY), place among the made ones (SAME), bytes
    of the target (LINK)
    targets of the links
    sources: old indices in the order of the virtual concatenation, each as its distance
    from the one after the last, folded
    made sources: gaps; these follow the old ones
"""

from __future__ import annotations

from itertools import accumulate

from updaterd.artifact import varint
from updaterd.core.frozen import record
from updaterd.core.tree import (
    MAX_FILES,
    MODE_MASK,
    File,
    Link,
    check_link,
    check_path,
    check_tree,
)
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from updaterd.core.tree import Entry

MAX_BYTES = 16 * 2**20
"""Largest script: one that adds 500,000 files needs about 12 MiB."""
LONG = 1 << 20
"""Bytes from which on a made file comes before all shorter ones."""
MADE, COPY, SAME, LINK = range(4)


@record
class Item:
    """One entry that the delta makes.

    Attributes:
        path: in the new tree.
        kind: MADE by the operations, COPY of an old file, SAME as a made one, LINK.
        mode: of a file.
        number: length of a MADE file, old index of a COPY, place of a SAME.
        target: of a LINK.
    """

    path: str
    kind: int
    mode: int = 0
    number: int = 0
    target: str = ""


@record
class Script:
    """What a delta does to a tree.

    Attributes:
        kept: old entries that stay as they are.
        items: what is made, in the order of `order`: MADE ones in stream order.
        sources: old files that operations read, in virtual order.
        places: of the made files that later operations read, which follow the
            sources in virtual order; ascending.
    """

    unchanged: tuple[Entry, ...]
    items: tuple[Item, ...]
    sources: tuple[File, ...]
    places: tuple[int, ...] = ()

    @property
    def again(self) -> tuple[File, ...]:
        """Return the made files that later operations read; their hash is unknown."""
        made_items = [item for item in self.items if item.kind == MADE]
        return tuple(
            File(
                made_items[place].path,
                "",
                made_items[place].number,
                made_items[place].mode,
            )
            for place in self.places
        )

    def barriers(self) -> tuple[int, ...]:
        """Return how many bytes are made when each of `again` is complete."""
        sizes = [item.number for item in self.items if item.kind == MADE]
        ends = tuple(accumulate(sizes))
        return tuple(ends[place] for place in self.places)


def _key(path: str) -> bytes:
    return path.encode()


def order(item: Item) -> tuple[bool, bytes]:
    """Return what items are sorted by: long made files first, then by path bytes.

    So the short ones, which are matched together, lie together in the stream, and
    can be copied from the long ones.
    """
    return item.kind != MADE or item.number < LONG, _key(item.path)


def encode(
    old: Sequence[Entry],
    items: Sequence[Item],
    sources: Sequence[int],
    places: Sequence[int],
    unchanged: set[str],
) -> bytes:
    """Return the script's bytes.

    Args:
        old: the old listing, sorted by path bytes.
        items: what is made.
        sources: old indices in virtual order.
        places: of the made files that operations read after those.
        unchanged: paths that stay as they are.
    """
    before_at = {entry.path: index for index, entry in enumerate(old)}
    changed = sorted(
        (item for item in items if item.path in before_at),
        key=lambda i: before_at[i.path],
    )
    added = sorted(
        (item for item in items if item.path not in before_at),
        key=lambda i: _key(i.path),
    )
    again = {item.path for item in changed}
    removed = [
        index
        for index, entry in enumerate(old)
        if entry.path not in unchanged and entry.path not in again
    ]
    every = (*changed, *added)
    paths, before = [], b""
    for item in added:
        name = _key(item.path)
        shared = 0
        while shared < min(len(name), len(before)) and name[shared] == before[shared]:
            shared += 1
        paths.append(varint.pack(shared, len(name) - shared) + name[shared:])
        before = name
    targets = [item.target.encode() for item in every]
    numbers = [
        len(target) if item.kind == LINK else item.number
        for item, target in zip(every, targets, strict=True)
    ]
    for place, item in enumerate(changed):
        before_entry = old[before_at[item.path]]
        if item.kind == MADE and isinstance(before_entry, File):
            numbers[place] = varint.fold(item.number - before_entry.length)
    after = [0, *(index + 1 for index in sources)]
    steps = [
        varint.fold(index - end) for index, end in zip(sources, after[:-1], strict=True)
    ]
    return b"".join((
        varint.pack(
            len(old), len(removed), len(changed), len(added), len(sources), len(places)
        ),
        varint.gaps(removed),
        varint.gaps(before_at[item.path] for item in changed),
        *paths,
        bytes(item.kind for item in every),
        varint.pack(*(item.mode for item in every if item.kind != LINK)),
        varint.pack(*numbers),
        *targets,
        varint.pack(*steps),
        varint.gaps(places),
    ))


def decode(data: bytes, old: Sequence[Entry]) -> Script:
    """Return the script in `data`, checked against the old listing.

    Raises:
        MalformedError: cut short, an index out of range, an unsafe path, or a
            result that is not one possible tree, or longer than a number.
    """
    cursor = varint.Cursor(data, "tree script")
    if cursor.number() != len(old):
        raise MalformedError("the delta starts from another tree", code="wrong_tree")
    removed_count, changed_count, added_count, source_count, again_count = (
        cursor.number(MAX_FILES) for _ in range(5)
    )
    removed = set(cursor.indices(removed_count, len(old)))
    changed = cursor.indices(changed_count, len(old))
    if not removed.isdisjoint(changed):
        raise MalformedError("tree script: an entry is both removed and changed")
    before = [old[index] for index in changed]
    paths = [entry.path for entry in before]
    paths += _added_paths(cursor, added_count)
    items = tuple(sorted(_items(cursor, paths, before, old), key=order))
    new_count = sum(item.kind == MADE for item in items)
    for item in items:
        if item.kind == SAME and item.number >= new_count:
            raise MalformedError("tree script: a file is the same as none")
    sources = []
    index = -1
    for step in cursor.numbers(source_count):
        index += 1 + varint.unfold(step)
        source = old[index] if 0 <= index < len(old) else None
        if not isinstance(source, File):
            raise MalformedError("tree script: a source is not a file")
        sources.append(source)
    places = cursor.indices(again_count, new_count)
    cursor.end()
    lengths = (item.number for item in items if item.kind == MADE)
    if sum(lengths, sum(file.length for file in sources)) > varint.MAX:
        raise MalformedError("tree script: files longer than any disk")
    replaced = removed.union(changed)
    unchanged = tuple(entry for index, entry in enumerate(old) if index not in replaced)
    made_now = [
        Link(item.path, item.target)
        if item.kind == LINK
        else File(item.path, "", 0, item.mode)
        for item in items
    ]
    check_tree((*unchanged, *made_now))
    return Script(unchanged, items, tuple(sources), tuple(places))


def _added_paths(cursor: varint.Cursor, count: int) -> list[str]:
    paths, before = [], b""
    for _ in range(count):
        shared = cursor.number(len(before))
        before = before[:shared] + cursor.raw(cursor.number(4096))
        try:
            paths.append(check_path(before.decode()))
        except UnicodeDecodeError as error:
            raise MalformedError("tree script: a path is not UTF-8") from error
    return paths


def _items(
    cursor: varint.Cursor,
    paths: list[str],
    before: Sequence[Entry],
    old: Sequence[Entry],
) -> list[Item]:
    kinds = cursor.raw(len(paths))
    if kinds.strip(bytes((MADE, COPY, SAME, LINK))):
        raise MalformedError("tree script: an unknown kind of item")
    mode_numbers = iter(cursor.numbers(len(kinds) - kinds.count(LINK)))
    modes = [next(mode_numbers) if kind != LINK else 0 for kind in kinds]
    if any(mode & ~MODE_MASK for mode in modes):
        raise MalformedError("tree script: a mode is not allowed")
    numbers = cursor.numbers(len(kinds))
    for place, (kind, before_entry) in enumerate(zip(kinds, before, strict=False)):
        if kind == MADE and isinstance(before_entry, File):
            numbers[place] = before_entry.length + varint.unfold(numbers[place])
            if not 0 <= numbers[place] <= varint.MAX:
                raise MalformedError("tree script: a file has an impossible length")
    items = []
    for path, kind, mode, number in zip(paths, kinds, modes, numbers, strict=True):
        target = ""
        if kind == LINK:
            target = check_link(path, cursor.text(number))
        elif kind == COPY and not (number < len(old) and isinstance(old[number], File)):
            raise MalformedError("tree script: a copy of what is not an old file")
        items.append(Item(path, kind, mode, number, target))
    return items
