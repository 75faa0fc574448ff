"""Delta bundles: from one release's tree to another's (docs/formats.md)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from updaterd.artifact import codecs, container, operations, script
from updaterd.artifact.script import COPY, LINK, MADE, SAME, Item
from updaterd.core.deltas import codec_name
from updaterd.core.manifest import Delta, Entry, File, Link, tree_id
from updaterd.errors import BrokenError
from updaterd.release import bundle, compress, matching

Progress = Callable[[str, int, int], None]

MEMORY = 48 * 2**20
"""Bytes it takes to apply any delta of format 1, whatever the file sizes."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a delta makes from which old files.

    Attributes:
        kept: paths that stay.
        items: everything else that is new; MADE ones in stream order.
        sources: old indices in virtual order.
    """

    kept: set[str]
    items: tuple[Item, ...]
    sources: tuple[int, ...]


def _plan(old: Sequence[Entry], new: Sequence[Entry]) -> _Plan:
    before = {entry.path: entry for entry in old}
    kept = {entry.path for entry in new if before.get(entry.path) == entry}
    at = {
        entry.sha256: index
        for index, entry in reversed(list(enumerate(old)))
        if isinstance(entry, File)
    }
    items: list[Item] = []
    made: dict[str, int] = {}
    for entry in new:
        if entry.path in kept:
            continue
        if isinstance(entry, Link):
            items.append(Item(entry.path, LINK, target=entry.target))
        elif entry.sha256 in at:
            items.append(Item(entry.path, COPY, entry.mode, at[entry.sha256]))
        elif entry.sha256 in made:
            items.append(Item(entry.path, SAME, entry.mode, made[entry.sha256]))
        else:
            made[entry.sha256] = len(made)
            items.append(Item(entry.path, MADE, entry.mode, entry.length))
    stays = {e.sha256 for e in new if isinstance(e, File)}
    sources = tuple(
        index
        for index, entry in enumerate(old)
        if made and isinstance(entry, File) and entry.sha256 not in stays
    )
    return _Plan(kept, tuple(items), sources)


def _load(root: Path, file: File) -> bytes:
    data = (root / file.path).read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise BrokenError(
            f"{root / file.path} changed while the delta was made",
            do="leave the trees alone while they are pushed",
            code="tree_changed",
        )
    return data


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
    budget: int = 1 << 30,  # noqa: ARG001
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
        progress: called with what is done, and how much of how much.
        budget: bytes of memory to stay within.

    Raises:
        BrokenError: a tree changed meanwhile.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    plan = _plan(old_files, new_files)
    by_path = {entry.path: entry for entry in new_files}
    old = b"".join(
        _load(old_root, entry)
        for entry in (old_files[index] for index in plan.sources)
        if isinstance(entry, File)
    )
    new = b"".join(
        _load(new_root, entry)
        for entry in (by_path[i.path] for i in plan.items if i.kind == MADE)
        if isinstance(entry, File)
    )
    ops = matching.bsdiff(old, new)
    diff, extra = _streams(old, new, ops)
    raw = (
        script.encode(old_files, plan.items, plan.sources, plan.kept),
        b"".join(operations.encode(ops)),
        diff,
        extra,
    )
    packed = []
    for index, data in enumerate(raw):
        packed.append(compress.smallest(data))
        if progress is not None:
            progress("delta", index + 1, len(raw))
    table = [(c, len(r), len(p)) for (c, p), r in zip(packed, raw, strict=True)]
    head = container.header(container.DELTA, table)
    sha256, length = bundle.write(out, head, BytesIO(b"".join(p for _, p in packed)))
    used = {codecs.NAMES[c] for c, _ in packed if c != codecs.STORED}
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


def _streams(
    old: bytes, new: bytes, ops: Sequence[tuple[int, int, int]]
) -> tuple[bytes, bytes]:
    """Return the diff and extra streams of operations."""
    diff, extra = bytearray(), bytearray()
    source = target = 0
    for length, more, skip in ops:
        diff += subtract(new[target : target + length], old[source : source + length])
        target += length
        extra += new[target : target + more]
        target += more
        source += length + skip
    return bytes(diff), bytes(extra)


def subtract(new: bytes, old: bytes) -> bytes:
    """Return new - old, byte by byte, modulo 256."""
    if new == old:
        return bytes(len(new))
    return bytes((a - b) & 255 for a, b in zip(new, old, strict=True))
