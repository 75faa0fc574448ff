# SPDX-License-Identifier: Apache-2.0
"""Delta bundles: from one release's tree to another's (docs/formats.md)."""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from updaterd.artifact import codecs, container, script
from updaterd.artifact.codecs import STORED
from updaterd.artifact.programs.projection import MAX_OPERATIONS
from updaterd.artifact.script import LONG
from updaterd.core.bundle_kinds import ARCHIVES, ARM, DELTA, PRIMED
from updaterd.core.manifest import Delta, Entry, File, tree_id
from updaterd.core.routes import codec_name
from updaterd.release.bundles import full as full_bundle
from updaterd.release.bundles import matching, primed
from updaterd.release.bundles.archives import expansion
from updaterd.release.bundles.archives.expansion import Sides
from updaterd.release.bundles.grouping import Group, groups
from updaterd.release.bundles.packing.reading import pieces
from updaterd.release.bundles.plan import Plan, made_from
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
    delta = _between_files(
        old_root,
        old_files,
        new_root,
        new_files,
        out,
        from_version,
        to_version,
        progress,
        budget,
        pool,
        DELTA,
    )
    assert delta is not None
    return delta


def _beside(  # noqa: PLR0913, PLR0917 - as `_build`
    kind: str,
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
    """Write a delta between two trees that an updaterd before 0.3.0 does not read.

    As `build_delta`; with AArch64 programs re-aimed, or as `primed`.

    Returns:
        None where the kind is of no use.

    Raises:
        BrokenError: a tree changed meanwhile, or a process was killed.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    return _between_files(
        old_root,
        old_files,
        new_root,
        new_files,
        out,
        from_version,
        to_version,
        progress,
        budget,
        pool,
        kind,
    )


build_arm = partial(_beside, ARM)
build_primed = partial(_beside, PRIMED)


def _between_files(  # noqa: PLR0913, PLR0917 - as `_build`
    old_root: Path,
    old_files: Sequence[Entry],
    new_root: Path,
    new_files: Sequence[Entry],
    out: Path,
    from_version: str,
    to_version: str,
    progress: Progress | None,
    budget: int,
    pool: Pool | None,
    kind: str,
) -> Delta | None:
    plan = made_from(old_files, new_files)
    if kind == PRIMED:
        plan = primed.with_all(plan, old_files)
    sources = [e for e in (old_files[i] for i in plan.sources) if isinstance(e, File)]
    sides = expansion.plain(old_root, sources, new_root, plan.targets)
    if kind == PRIMED and not primed.suits(sides):
        return None
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
            kind,
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
            ARCHIVES,
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
    kind: str,
) -> Delta | None:
    """Write a delta between files, or pieces of them.

    Args:
        plan: what is made of what.
        sides: the files, or what is in them.
        old_files: the old listing.
        new_files: the new one.
        out: file to write.
        base: where to keep what is in the making.
        from_version: label of the old release.
        to_version: label of the new one.
        progress: told how far it is.
        budget: bytes of memory, about.
        pool: cores and memory to share.
        kind: DELTA for what every updaterd reads; ARM and PRIMED as `_beside`;
            ARCHIVES for `build_inflated`.

    Raises:
        BrokenError: a tree changed meanwhile, or a process was killed.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
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
            old_files,
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
    sha256, length = full_bundle.write(out, head, pieces(files))
    more(total)
    used = {codecs.NAMES[codec] for codec, *_ in table if codec != STORED}
    return Delta(
        from_version=from_version,
        from_tree=tree_id(tuple(old_files)),
        to_version=to_version,
        to_tree=tree_id(tuple(new_files)),
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
