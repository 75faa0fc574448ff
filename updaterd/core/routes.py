# SPDX-License-Identifier: Apache-2.0
"""Which way from a tree on disk to a new release costs least.

Pure: the edges are the signed manifest's, the trees on disk and the codecs are
the caller's. Dijkstra over tree ids; an edge weighs its bytes plus a byte for each
KiB of memory it takes to apply, so that of two routes of like size the one with
fewer and lighter hops wins. A full bundle takes memory, too, and weighs as much.
"""

from collections.abc import Mapping
from heapq import heappop, heappush
from itertools import chain, combinations

from updaterd.core.bundle_kinds import BSDIFF, KINDS
from updaterd.core.dataclass import dataclass
from updaterd.core.manifest import Delta, Full, Manifest
from updaterd.core.names import version_key
from updaterd.core.units import format_bytes
from updaterd.errors import RejectedError

COMPRESSIONS = ("bz2", "xz", "zstd")


def codec_name(kind: str, compressions: frozenset[str]) -> str:
    """Return the codec name of a bundle: `delta1+xz+zstd`, `full1+xz`, `full1`.

    Args:
        kind: one of KINDS; its digit changes when an old reader could not read the
            new format.
        compressions: which of COMPRESSIONS occur in the bundle.
    """
    return "+".join((kind, *sorted(compressions)))


def codec_names(compressions: frozenset[str]) -> frozenset[str]:
    """Return every codec that a machine with these decompressors can read."""
    ordered = sorted(compressions)
    subsets = chain.from_iterable(
        combinations(ordered, count) for count in range(len(ordered) + 1)
    )
    names = {
        codec_name(kind, frozenset(subset))
        for subset in subsets
        for kind in KINDS.keys() - {BSDIFF}  # that one is always bz2
    }
    return frozenset(names | ({BSDIFF} if "bz2" in compressions else set()))


CODECS = codec_names(frozenset(COMPRESSIONS))
"""All codec names this version of updaterd knows."""


def codecs_since(version: str, kinds: Mapping[str, str] = KINDS) -> frozenset[str]:
    """Return the codecs that every updaterd from a version on can read.

    Args:
        version: as a manifest's `min_updater` has it.
        kinds: as `KINDS`.
    """
    since = {kind: version_key(first) for kind, first in kinds.items()}
    number = max(version_key(version), min(since.values()))
    return frozenset(name for name in CODECS if since[name.split("+")[0]] <= number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What to download and apply, in order.

    Attributes:
        kind: "full" or "delta".
        steps: one `Full`, or one or more `Delta`.
        bytes: to download, in all.
        name: the route itself, in a few words.
        reason: one line for `updaterd update --explain`: the route, and why it is this.
        start: version in `have` that the first delta starts from.
        alternatives: the other routes that were weighed, best first.
    """

    kind: str
    steps: tuple[Full | Delta, ...]
    bytes: int
    reason: str
    name: str
    start: str | None = None
    alternatives: tuple[str, ...] = ()


FULL_MEMORY = 48 * 1024
"""KiB that applying a full bundle takes, as any delta of plain files."""


def cost(delta: Delta) -> int:
    """Return what the search minimises for one edge: bytes, plus KiB of memory."""
    return delta.length + delta.memory // 1024


def beyond(steps: tuple[Delta, ...]) -> int:
    """Return what deltas weigh against a full bundle, which takes memory as well."""
    memory = sum(delta.memory // 1024 for delta in steps)
    return sum(delta.length for delta in steps) + max(0, memory - FULL_MEMORY)


def choose_route(
    manifest: Manifest,
    *,
    have: Mapping[str, str],
    codecs: frozenset[str],
    skip: frozenset[str] = frozenset(),
    memory: int | None = None,
) -> Route:
    """Return the cheapest way to the manifest's tree.

    Args:
        manifest: of the release to install, verified.
        have: tree ids of the releases that are whole on disk, by version.
        codecs: what this machine can apply (`artifact.codecs.available`).
        skip: sha256 of bundles that already failed in this run.
        memory: bytes an edge may ask for; None for no limit.

    Raises:
        RejectedError: no bundle that is left can be applied here.
    """
    limits = _Limits(manifest.tree, codecs, skip, memory)
    usable = tuple(delta for delta in manifest.deltas if not limits.against(delta))
    routes = _routes(usable, manifest.tree, have)
    full = manifest.full
    full_fits = full.codec in codecs and full.sha256 not in skip
    shown = [(beyond(steps), _show(start, steps)) for _, start, steps in routes]
    if full_fits:
        shown.append((full.length, f"full, {full.length} B"))
    if routes and (not full_fits or beyond(routes[0][2]) < full.length):
        _, start, steps = routes[0]
        size = sum(step.length for step in steps)
        failed = "failed" if full.sha256 in skip else f"is {_unreadable(full.codec)}"
        against = f"full is {full.length} B" if full_fits else f"full {failed}"
        chosen = _show(start, steps)
        return Route(
            kind="delta",
            steps=steps,
            bytes=size,
            name=chosen,
            reason=f"{chosen}; {against}",
            start=start,
            alternatives=_others(shown, chosen),
        )
    if not full_fits:
        raise RejectedError(
            f"no bundle of {manifest.product} {manifest.version} can be used here",
            means="each one failed, or is in a format this updaterd cannot read",
            do="update updaterd itself, or publish the release again",
            code="no_usable_bundle",
        )
    chosen = f"full, {full.length} B"
    why = _why_full(manifest, have, limits)
    return Route(
        kind="full",
        steps=(full,),
        bytes=full.length,
        name=chosen,
        reason=f"{chosen}; {why}",
        alternatives=_others(shown, chosen),
    )


_Route = tuple[int, str, tuple[Delta, ...]]


@dataclass(frozen=True, slots=True)
class _Limits:
    """What keeps a delta from being used here."""

    target: str
    codecs: frozenset[str]
    skip: frozenset[str]
    memory: int | None

    def against(self, delta: Delta) -> str:
        """Return why it cannot be used, as what follows "it"; "" if it can."""
        if delta.sha256 in self.skip:
            return "failed"
        if delta.codec not in self.codecs:
            return f"is {_unreadable(delta.codec)}"
        if self.memory is not None and delta.memory > self.memory:
            return f"needs {format_bytes(delta.memory)} of memory, more than it may"
        if delta.codec == BSDIFF and delta.to_tree != self.target:
            return f"is {delta.codec}, which can only be the last step"
        return ""


def _unreadable(codec: str) -> str:
    return f"in a format ({codec}) that cannot be read here"


def _why_full(
    manifest: Manifest,
    have: Mapping[str, str],
    limits: _Limits,
) -> str:
    """Return why the full bundle was chosen: what spoke against the best delta.

    The best is the one that is smallest, whether it can be used or not.
    """
    every = _routes(manifest.deltas, manifest.tree, have)
    sizes = {start: sum(step.length for step in steps) for _, start, steps in every}
    smaller = [route for route in every if sizes[route[1]] < manifest.full.length]
    if not smaller:
        return "no delta is smaller" if every else "no delta starts from a tree on disk"
    _, start, steps = min(smaller, key=lambda route: sizes[route[1]])
    shown = _show(start, steps)
    for step in steps:
        if obstacle := limits.against(step):
            which = "it" if len(steps) == 1 else f"its step to {step.to_version}"
            return f"{shown}: {which} {obstacle}"
    weight = beyond(steps) - sizes[start]
    return f"{shown}, asks for memory that weighs as {weight} B more, one for each KiB"


def _routes(
    edges: tuple[Delta, ...], target: str, have: Mapping[str, str]
) -> list[_Route]:
    """Return the cheapest route from every tree on disk, cheapest first."""
    incoming: dict[str, list[Delta]] = {}
    for delta in edges:
        incoming.setdefault(delta.to_tree, []).append(delta)
    # Backwards from the target: one search serves every tree on disk.
    best: dict[str, tuple[Delta, ...]] = {}
    weights: dict[str, int] = {}
    queue: list[tuple[int, int, int, str, tuple[Delta, ...]]] = [(0, 0, 0, target, ())]
    pushed = 0
    while queue:
        weight, hops, _, tree, steps = heappop(queue)
        if tree in best:
            continue
        best[tree], weights[tree] = steps, weight
        for delta in sorted(incoming.get(tree, ()), key=lambda d: d.sha256):
            if delta.from_tree not in best:
                pushed += 1  # ties fall to the first pushed, never to comparing deltas
                rank = (weight + cost(delta), hops + 1, pushed)
                heappush(queue, (*rank, delta.from_tree, (delta, *steps)))
    return sorted(
        (
            (weights[tree], version, best[tree])
            for version, tree in have.items()
            if tree != target and tree in best
        ),
        key=lambda route: (route[0], len(route[2]), route[1]),
    )


def _show(start: str, steps: tuple[Delta, ...]) -> str:
    stops = " -> ".join((start, *(step.to_version for step in steps)))
    count = "delta" if len(steps) == 1 else f"{len(steps)} deltas"
    return f"{count} {stops}, {sum(step.length for step in steps)} B"


def _others(shown: list[tuple[int, str]], chosen: str) -> tuple[str, ...]:
    return tuple(text for _, text in sorted(shown) if text != chosen)
