# SPDX-License-Identifier: Apache-2.0
"""What a delta between two trees has to make, and what it makes it from."""

from collections.abc import Sequence
from dataclasses import dataclass

from updaterd.artifact import script
from updaterd.artifact.script import COPY, LINK, MADE, SAME, Item
from updaterd.core.manifest import Entry, File, Link


@dataclass(frozen=True, slots=True)
class Plan:
    """What a delta makes from which old files.

    Attributes:
        unchanged: paths that stay.
        items: everything else that is new, in script order.
        targets: what the operations make, in stream order.
        sources: old indices in virtual order.
    """

    unchanged: set[str]
    items: tuple[Item, ...]
    targets: tuple[File, ...]
    sources: tuple[int, ...]


def made_from(old: Sequence[Entry], new: Sequence[Entry]) -> Plan:
    """Return what a delta between two trees makes, and from which old files."""
    before = {entry.path: entry for entry in old}
    after = {entry.path: entry for entry in new if isinstance(entry, File)}
    unchanged = {entry.path for entry in new if before.get(entry.path) == entry}
    at = {
        entry.sha256: index
        for index, entry in reversed(list(enumerate(old)))
        if isinstance(entry, File)
    }
    items: list[Item] = []
    first: dict[str, str] = {}
    for entry in new:
        if entry.path in unchanged:
            continue
        if isinstance(entry, Link):
            items.append(Item(entry.path, LINK, target=entry.target))
        elif entry.sha256 in at:
            items.append(Item(entry.path, COPY, entry.mode, at[entry.sha256]))
        elif entry.sha256 in first:
            items.append(Item(entry.path, SAME, entry.mode))
        else:
            first[entry.sha256] = entry.path
            items.append(Item(entry.path, MADE, entry.mode, entry.length))
    items.sort(key=script.order)
    targets = tuple(after[item.path] for item in items if item.kind == MADE)
    place = {file.sha256: index for index, file in enumerate(targets)}
    items = [
        Item(item.path, SAME, item.mode, place[after[item.path].sha256])
        if item.kind == SAME
        else item
        for item in items
    ]
    stays = {entry.sha256 for entry in after.values()}
    sources = tuple(
        index
        for index, entry in enumerate(old)
        if targets and isinstance(entry, File) and entry.sha256 not in stays
    )
    return Plan(unchanged, tuple(items), targets, sources)
