"""Delta bundles: from one release's tree to another's (docs/formats.md)."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain
from pathlib import Path

from updaterd.artifact import codecs, container, operations, script, sparse
from updaterd.artifact.script import COPY, LINK, MADE, SAME, Item
from updaterd.core.deltas import codec_name
from updaterd.core.manifest import Delta, Entry, File, Link, tree_id
from updaterd.release import bundle, compress, matching
from updaterd.release.groups import Group, Reader, groups
from updaterd.release.matching import Cover

Progress = Callable[[str, int, int], None]

MEMORY = 48 * 2**20
"""Bytes it takes to apply any delta of format 1, whatever the file sizes."""
BUDGET = 1 << 30
"""Bytes of memory that making a delta may take by default, about."""

_SHORTEST = (0, 32)
"""Covers shorter than this may cost more than they save; what is smaller wins."""
_JOINS = (3, 512)
"""See `sparse.encode`: text likes short runs, code likes long ones."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a delta makes from which old files.

    Attributes:
        kept: paths that stay.
        items: everything else that is new, in script order.
        made: what the operations make, in stream order.
        sources: old indices in virtual order.
    """

    kept: set[str]
    items: tuple[Item, ...]
    made: tuple[File, ...]
    sources: tuple[int, ...]


def _plan(old: Sequence[Entry], new: Sequence[Entry]) -> _Plan:
    before = {entry.path: entry for entry in old}
    after = {entry.path: entry for entry in new if isinstance(entry, File)}
    kept = {entry.path for entry in new if before.get(entry.path) == entry}
    at = {
        entry.sha256: index
        for index, entry in reversed(list(enumerate(old)))
        if isinstance(entry, File)
    }
    items: list[Item] = []
    first: dict[str, str] = {}
    for entry in new:
        if entry.path in kept:
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
    made = tuple(after[item.path] for item in items if item.kind == MADE)
    place = {file.sha256: index for index, file in enumerate(made)}
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
        if made and isinstance(entry, File) and entry.sha256 not in stays
    )
    return _Plan(kept, tuple(items), made, sources)


@dataclass
class _Streams:
    """What the groups add up to."""

    covers: list[Cover] = field(default_factory=list)
    diff: bytearray = field(default_factory=bytearray)
    extra: bytearray = field(default_factory=bytearray)

    def add(self, group: Group, reader: Reader) -> None:
        """Match one group and take its covers and streams."""
        old, new = reader.old(group), reader.new(group)
        found = matching.find(old, new)
        covers = _worthwhile(old, new, found)
        diff, extra = matching.streams(old, new, covers)
        self.diff += diff
        self.extra += extra
        self.covers += group.place(covers)


def _worthwhile(old: bytes, new: bytes, found: list[Cover]) -> list[Cover]:
    """Return the covers without the short ones, if that is smaller."""

    def size(covers: list[Cover]) -> int:
        diff, extra = matching.streams(old, new, covers)
        ops = matching.operations(covers, len(new))
        control = b"".join(operations.encode(ops))
        return sum(map(compress.guess, (control, *sparse.encode(diff, 3), extra)))

    choices = [[c for c in found if c[2] >= least] for least in _SHORTEST]
    if len(choices[0]) == len(choices[-1]):
        return found
    return min(choices, key=size)


def build_delta(  # noqa: PLR0913
    old_root: Path,
    old_files: Sequence[Entry],
    new_root: Path,
    new_files: Sequence[Entry],
    out: Path,
    *,
    from_version: str,
    to_version: str,
    progress: Progress | None = None,
    budget: int = BUDGET,
) -> Delta:
    """Write the delta bundle between two trees, the same bytes for the same trees.

    Args:
        old_root: tree the delta starts from.
        old_files: its listing, as `tree.scan` returns it.
        new_root: tree it makes.
        new_files: its listing.
        out: file to write; replaced.
        from_version: label of the old release.
        to_version: label of the new one.
        progress: called with "delta", and how much of how much is done.
        budget: bytes of memory that matching may take, about; larger groups of
            files are split, which costs some bytes in the bundle.

    Raises:
        BrokenError: a tree changed meanwhile.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    plan = _plan(old_files, new_files)
    sources = [e for e in (old_files[i] for i in plan.sources) if isinstance(e, File)]
    limit = max(1 << 20, budget // matching.bytes_per_old_byte())
    found, places = groups(sources, plan.made, limit)
    streams = _Streams()
    size = sum(file.length for file in plan.made)
    total = max(1, 2 * size)
    reader = Reader(old_root, sources, new_root, plan.made)
    reader.use(places)
    done = 0
    for group in found:
        streams.add(group, reader)
        done += group.length
        if progress is not None:
            progress("delta", done, total)
    ops = matching.operations(streams.covers, size)
    names = script.encode(old_files, plan.items, plan.sources, places, plan.kept)
    runs = _runs(bytes(streams.diff))
    del streams.diff
    rest = (names, b"".join(operations.encode(ops)), bytes(streams.extra))
    with ThreadPoolExecutor() as pool:
        first, control, extra = zip(
            rest, pool.map(compress.smallest, rest), strict=True
        )
    parts = (first, control, *runs, extra)
    table = [(codec, len(raw), len(data)) for raw, (codec, data) in parts]
    head = container.header(container.DELTA, table)
    body = BytesIO(b"".join(data for _, (_, data) in parts))
    sha256, length = bundle.write(out, head, body)
    used = {codecs.NAMES[codec] for codec, _, _ in table if codec != codecs.STORED}
    if progress is not None:
        progress("delta", total, total)
    return Delta(
        from_version=from_version,
        from_tree=tree_id(tuple(old_files)),
        to_version=to_version,
        to_tree=tree_id(tuple(new_files)),
        sha256=sha256,
        length=length,
        codec=codec_name("delta1", frozenset(used)),
        memory=MEMORY,
    )


def _runs(diff: bytes) -> list[tuple[bytes, compress.Packed]]:
    """Return runs and changes of a diff, raw and packed, split the smallest way."""
    choices = [sparse.encode(diff, join) for join in _JOINS]
    if choices[0] == choices[-1]:
        del choices[1:]
    with ThreadPoolExecutor() as pool:
        packed = list(pool.map(compress.smallest, chain.from_iterable(choices)))
    pairs = [
        list(zip(raw, packed[2 * index : 2 * index + 2], strict=True))
        for index, raw in enumerate(choices)
    ]
    return min(pairs, key=lambda pair: sum(len(data) for _, (_, data) in pair))
