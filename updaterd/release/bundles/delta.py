# SPDX-License-Identifier: Apache-2.0
"""Delta bundles: from one release's tree to another's (docs/formats.md)."""

import tempfile
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path

from updaterd.artifact import codecs, container, script
from updaterd.artifact.apply import operations
from updaterd.artifact.codecs import STORED, XZ, ZSTD
from updaterd.artifact.programs.projection import MAX_OPERATIONS
from updaterd.artifact.script import LONG
from updaterd.core.bundle_kinds import ARCHIVES, DELTA, PROJECTED
from updaterd.core.manifest import Delta, Entry, File, tree_id
from updaterd.core.routes import codec_name
from updaterd.release.bundles import full as full_bundle
from updaterd.release.bundles import matching
from updaterd.release.bundles.archives import expansion
from updaterd.release.bundles.archives.expansion import Sides
from updaterd.release.bundles.compress import LARGE
from updaterd.release.bundles.grouping import Group, groups
from updaterd.release.bundles.matching import Cover
from updaterd.release.bundles.plan import Plan, made_from
from updaterd.release.bundles.pool import BUDGET, Pool
from updaterd.release.bundles.programs import elf
from updaterd.release.bundles.programs import images as program_images
from updaterd.release.bundles.programs.images import Imaging
from updaterd.release.bundles.ranges import Ranges
from updaterd.release.bundles.reading import pieces
from updaterd.release.bundles.runs import Runs
from updaterd.release.bundles.tasks import Match, Pack

Progress = Callable[[str, int, int], None]

MEMORY = 48 * 2**20
"""Bytes it takes to apply any delta of format 1, whatever the file sizes."""

_Perform = Callable[
    [Sequence[Match] | Sequence[Pack], Sequence[int], Callable[[int], None]],
    list[list[int]],
]

_MATCHING, _PACKING = 2, 1  # shares of the progress bar


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
    pool: Pool | None = None,
) -> Delta:
    """Write the delta bundle between two trees, the same bytes for the same trees.

    Args:
        old_root: tree the delta starts from.
        old_files: its listing, as `tree.scan` returns it.
        new_root: tree it makes.
        new_files: its listing.
        out: file to write; replaced. What is in the making lies beside it.
        from_version: label of the old release.
        to_version: label of the new one.
        progress: called with "delta", and how much of how much is done.
        budget: bytes of memory that matching may take, about; larger groups of
            files are split, which costs some bytes in the bundle.
        pool: cores and memory to share with other deltas; None for all cores.

    Raises:
        BrokenError: a tree changed meanwhile, or a process was killed.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    plan = made_from(old_files, new_files)
    sources = [e for e in (old_files[i] for i in plan.sources) if isinstance(e, File)]
    sides = expansion.plain(old_root, sources, new_root, plan.targets)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="making-") as scratch:
        return _build(
            plan,
            sides,
            old_files,
            new_files,
            out,
            Path(scratch),
            from_version,
            to_version,
            progress,
            budget,
            pool,
        )


def build_inflated(  # noqa: PLR0913
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
    pool: Pool | None = None,
) -> Delta | None:
    """Write the delta between two trees whose archives are inflated.

    As `build_delta`; machines read it whose zlib is the classic one.

    Returns:
        None where there are no archives, or none that can be made anew.

    Raises:
        BrokenError: a tree changed meanwhile, or a process was killed.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    plan = made_from(old_files, new_files)
    sources = [e for e in (old_files[i] for i in plan.sources) if isinstance(e, File)]
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="making-") as scratch:
        inside = Path(scratch) / "inflated"
        inside.mkdir()
        sides = expansion.expand(old_root, sources, new_root, plan.targets, inside)
        if sides is None:
            return None
        return _build(
            plan,
            sides,
            old_files,
            new_files,
            out,
            Path(scratch),
            from_version,
            to_version,
            progress,
            budget,
            pool,
        )


def _build(  # noqa: PLR0913, PLR0917 - all that a delta is made of
    plan: Plan,
    sides: Sides,
    old_files: Sequence[Entry],
    new_files: Sequence[Entry],
    out: Path,
    base: Path,
    from_version: str,
    to_version: str,
    progress: Progress | None,
    budget: int,
    pool: Pool | None,
) -> Delta:
    """Write a delta between files, or pieces of them."""
    matcher = matching.installed()
    limit = max(1 << 20, matching.limit(matcher, budget))
    clusters, places = groups(
        sides.sources, sides.targets, limit, _bundled(sides, matcher), sides.long
    )
    pool = pool or Pool(budget=budget)
    size = sum(file.length for file in sides.targets)
    archives = sides.stream(places)
    total = max(1, size * (_MATCHING + _PACKING))
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("delta", min(done, total), total)

    ranges = Ranges(sides.old, sides.sources, sides.new, sides.targets, places)
    imaged = program_images.describe(clusters, ranges, len(sides.sources), places, base)
    with ThreadPoolExecutor(pool.cores) as threads:
        perform = partial(_all, threads, pool)
        streams = _match(base, clusters, ranges, imaged, perform, more)
        if imaged.stream and streams.count >= MAX_OPERATIONS:
            imaged = program_images.none(clusters)
            streams = _match(base, clusters, ranges, imaged, perform, more)
        names = script.encode(
            old_files,
            plan.items,
            plan.sources,
            () if archives else places,
            plan.unchanged,
        )
        packs = streams.finish(names, imaged.stream, archives, size)
        bytes_in = max(1, sum(pack.size for pack in packs))
        shares = [size * _PACKING * pack.size // bytes_in for pack in packs]
        if imaged.stream:
            packs = [replace(pack, codec=ZSTD) for pack in packs]
        table = perform(packs, shares, more)
        if imaged.stream and sum(length for *_, length in table) < LARGE:
            packs = [replace(pack, codec=XZ) for pack in packs]
            table = perform(packs, [0] * len(packs), more)
    files = [
        path
        for pack, (codec, *_) in zip(packs, table, strict=True)
        for path in pack.files(codec)
    ]
    head = container.header(
        container.DELTA, [(codec, raw, length) for codec, raw, length in table]
    )
    sha256, length = full_bundle.write(out, head, pieces(files))
    more(total)
    kind = PROJECTED if imaged.stream else DELTA
    if archives:
        kind = ARCHIVES
    used = {codecs.NAMES[codec] for codec, *_ in table if codec != STORED}
    return Delta(
        from_version=from_version,
        from_tree=tree_id(tuple(old_files)),
        to_version=to_version,
        to_tree=tree_id(tuple(new_files)),
        sha256=sha256,
        length=length,
        codec=codec_name(kind, frozenset(used)),
        memory=MEMORY,
    )


def _bundled(sides: Sides, matcher: str) -> set[int]:
    """Return the places of the long files that may be bundled from many others.

    No programs; and none for bsdiff4, which takes five times as long for each byte.
    """
    if matcher != matching.HDIFFPATCH:
        return set()
    return {
        place
        for place, path in enumerate(sides.new[: sides.long])
        if sides.targets[place].length >= LONG and not elf.is_one(path)
    }


def _match(  # noqa: PLR0913, PLR0917 - the state of one delta
    base: Path,
    clusters: Sequence[Group],
    ranges: Ranges,
    imaged: Imaging,
    perform: _Perform,
    more: Callable[[int], None],
) -> "_Streams":
    """Match every group."""
    matcher = matching.installed()
    tasks = [
        Match(
            old=[piece.range for piece in ranges.old(group)],
            new=[piece.range for piece in ranges.new(group)],
            matcher=matcher,
            out=str(base / str(number)),
            images=imaged.groups[number],
        )
        for number, group in enumerate(clusters)
    ]
    streams = _Streams(base)
    idle = perform(tasks, [_MATCHING * g.length for g in clusters], more)
    for group, task, (zeros,) in zip(clusters, tasks, idle, strict=True):
        streams.add(group, task.out, zeros)
    return streams


def _all(
    threads: ThreadPoolExecutor,
    pool: Pool,
    tasks: Sequence[Match] | Sequence[Pack],
    shares: Sequence[int],
    more: Callable[[int], None],
) -> list[list[int]]:
    """Return what tasks return, in order; long ones start first."""
    order = sorted(range(len(tasks)), key=lambda i: -tasks[i].size)
    running = {threads.submit(pool.perform, tasks[index]): index for index in order}
    results: list[list[int]] = [[] for _ in tasks]
    for future in as_completed(running):
        results[running[future]] = future.result()
        more(shares[running[future]])
    return results


class _Streams:
    """What the groups add up to, in files."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._covers: list[Cover] = []
        self._runs = Runs()
        self._groups: list[str] = []

    @property
    def count(self) -> int:
        """Return how many copies there are."""
        return len(self._covers)

    def add(self, group: Group, prefix: str, idle: int) -> None:
        """Take over one group, in stream order."""
        numbers = iter(_load("Q", f"{prefix}.covers"))
        self._covers += group.place(list(zip(numbers, numbers, numbers, strict=True)))
        runs = Runs()
        runs.gaps, runs.lengths = (
            _load("I", f"{prefix}.gaps"),
            _load("H", f"{prefix}.lengths"),
        )
        runs.idle = idle
        self._runs.follow(runs)
        self._groups.append(prefix)

    def finish(
        self, names: bytes, images: bytes, archives: bytes, size: int
    ) -> list[Pack]:
        """Return what is to be packed, in the order of the bundle.

        Args:
            names: the script.
            images: the images stream; empty where there is none.
            archives: the archives stream; empty where there is none.
            size: of all that is made.

        Raises:
            OSError: the disk refused.

        Power cut: nothing reads these files again.
        """
        ops = matching.operations(self._covers, size)
        self._covers = []
        written = {
            "script": iter([names]),
            "control": operations.encode(ops),
            "runs": self._runs.blocks(),
        }
        for name, data in written.items():
            with (self._base / name).open("wb") as file:
                file.writelines(data)
        parts = {name: [str(self._base / name)] for name in written} | {
            name: [f"{prefix}.{name}" for prefix in self._groups]
            for name in ("changes", "extra")
        }
        if images or archives:
            (self._base / "images").write_bytes(images)
            parts["images"] = [str(self._base / "images")]
        if archives:
            (self._base / "archives").write_bytes(archives)
            parts["archives"] = [str(self._base / "archives")]
        return [
            Pack(
                parts=paths,
                planar=name in {"control", "runs"},
                out=str(self._base / f"{name}.packed"),
            )
            for name, paths in parts.items()
        ]


def _load(kind: str, path: str) -> "array[int]":
    numbers = array(kind)
    numbers.frombytes(Path(path).read_bytes())
    return numbers
