# SPDX-License-Identifier: Apache-2.0
"""A delta in the making: grouped, matched, packed, written (docs/formats.md)."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from updaterd.artifact import codecs, container, script
from updaterd.artifact.codecs import STORED
from updaterd.artifact.programs.projection import MAX_OPERATIONS
from updaterd.artifact.script import LONG
from updaterd.core.bundle_kinds import ARM, DELTA, PRIMED
from updaterd.core.manifest import Delta, Entry, tree_id
from updaterd.core.routes import codec_name
from updaterd.release.bundles import full as full_bundle
from updaterd.release.bundles import matching, primed
from updaterd.release.bundles.archives.expansion import Sides
from updaterd.release.bundles.grouping import Group, groups
from updaterd.release.bundles.packing.reading import pieces
from updaterd.release.bundles.plan import Plan
from updaterd.release.bundles.pool import BUDGET, Pool
from updaterd.release.bundles.programs import elf
from updaterd.release.bundles.programs import images as program_images
from updaterd.release.bundles.programs import matching as program_matching
from updaterd.release.bundles.programs.images import Imaging
from updaterd.release.bundles.ranges import Ranges
from updaterd.release.bundles.streams import Streams, cheapest
from updaterd.release.bundles.tasks import Match, Pack

Progress = Callable[[str, int, int], None]

MEMORY = 48 * 2**20
"""Bytes it takes to apply any delta of format 1, whatever the file sizes."""

_Perform = Callable[
    [Sequence[Match] | Sequence[Pack], Sequence[int], Callable[[int], None]],
    list[list[int]],
]

_MATCHING, _PACKING = 2, 1  # shares of the progress bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A delta that is asked for; see `delta.build_delta`.

    Attributes:
        old_root: tree it starts from.
        old_files: its listing.
        new_root: tree it makes.
        new_files: its listing.
        out: file to write.
        from_version: label of the old release.
        to_version: label of the new one.
        progress: told how far it is.
        budget: bytes of memory, about.
        pool: cores and memory to share.
    """

    old_root: Path
    old_files: Sequence[Entry]
    new_root: Path
    new_files: Sequence[Entry]
    out: Path
    from_version: str
    to_version: str
    progress: Progress | None = None
    budget: int = BUDGET
    pool: Pool | None = None


def make(
    request: Request, plan: Plan, sides: Sides, base: Path, kind: str
) -> Delta | None:
    """Write a delta between files, or pieces of them.

    Args:
        request: from where to where.
        plan: what is made of what.
        sides: the files, or what is in them.
        base: where to keep what is in the making.
        kind: DELTA for what every updaterd reads; ARM, PRIMED or ARCHIVES.

    Returns:
        None where the kind is of no use.

    Raises:
        BrokenError: a tree changed meanwhile, or a process was killed.
        OSError: the disk refused.

    Power cut: `request.out` may be incomplete; it is published only later.
    """
    budget, progress = request.budget, request.progress
    matcher = matching.installed()
    limit = max(1 << 20, matching.limit(matcher, budget))
    programs = _programs(sides, matcher, arm=kind != DELTA)
    clusters, places = groups(
        sides.sources,
        sides.targets,
        limit,
        _bundled(sides, matcher),
        sides.long,
        programs=programs,
        whole=matching.room(budget) // 3,
    )
    pool = request.pool or Pool(budget=budget)
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
    imaged = program_images.describe(
        clusters,
        ranges,
        len(sides.sources),
        places,
        base,
        arm=kind not in {DELTA, PRIMED},
    )
    if (kind == ARM and not imaged.arm) or (kind == PRIMED and imaged.stream):
        return None
    with ThreadPoolExecutor(pool.cores) as threads:
        perform = partial(pool.perform_all, threads)
        match = partial(_match, base, clusters, ranges, budget, perform, more)
        streams = match(imaged)
        if imaged.stream and MAX_OPERATIONS <= streams.count < 4 * MAX_OPERATIONS:
            streams = match(imaged, streams.shares(MAX_OPERATIONS - 1))
        if imaged.stream and streams.count >= MAX_OPERATIONS:
            if kind == ARM:
                return None
            imaged = program_images.none(clusters)
            streams = match(imaged)
        names = script.encode(
            request.old_files,
            plan.items,
            plan.sources,
            () if archives else places,
            plan.unchanged,
        )
        packs = streams.finish(names, imaged.stream, archives, size)
        bytes_in = max(1, sum(pack.size for pack in packs))
        idle = [0] * len(packs)
        shares = [size * _PACKING * pack.size // bytes_in for pack in packs]
        packs, table = cheapest(
            packs,
            lambda several, first: perform(several, shares if first else idle, more),
            imaged=bool(imaged.stream),
            rate=pool.rate,
        )
    files = [
        path
        for pack, (codec, *_) in zip(packs, table, strict=True)
        for path in pack.files(codec)
    ]
    if kind == PRIMED:
        table, files = primed.pack(base, sides, packs, table)
    head = container.header(
        container.DELTA, [(codec, raw, length) for codec, raw, length in table]
    )
    sha256, length = full_bundle.write(request.out, head, pieces(files))
    more(total)
    used = {codecs.NAMES[codec] for codec, *_ in table if codec != STORED}
    return Delta(
        from_version=request.from_version,
        from_tree=tree_id(tuple(request.old_files)),
        to_version=request.to_version,
        to_tree=tree_id(tuple(request.new_files)),
        sha256=sha256,
        length=length,
        codec=codec_name(primed.kind_of(kind, imaged, archives), frozenset(used)),
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


def _programs(sides: Sides, matcher: str, *, arm: bool) -> set[int]:
    """Return the places of the long files whose references can be re-aimed.

    They are matched whole where only windows of them fit; with HDiffPatch.
    """
    if matcher != matching.HDIFFPATCH or program_matching.compiled() is None:
        return set()
    return {
        place
        for place, path in enumerate(sides.new[: sides.long])
        if elf.is_known(path, arm=arm)
    }


def _match(  # noqa: PLR0913, PLR0917 - the state of one delta
    base: Path,
    clusters: Sequence[Group],
    ranges: Ranges,
    budget: int,
    perform: _Perform,
    more: Callable[[int], None],
    imaged: Imaging,
    most: Sequence[int] = (),
) -> Streams:
    """Match every group, to at most so many copies each."""
    matcher = matching.installed()
    tasks = [
        Match(
            old=[piece.range for piece in ranges.old(group)],
            new=[piece.range for piece in ranges.new(group)],
            matcher=matcher,
            out=str(base / str(number)),
            room=matching.room(budget),
            images=imaged.groups[number],
            most=most[number] if most else None,
        )
        for number, group in enumerate(clusters)
    ]
    streams = Streams(base)
    idle = perform(tasks, [_MATCHING * g.length for g in clusters], more)
    for group, task, (zeros,) in zip(clusters, tasks, idle, strict=True):
        streams.add(group, task.out, zeros)
    return streams
