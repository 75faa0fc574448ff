# SPDX-License-Identifier: Apache-2.0
"""What machines would fetch of a release, before it is published."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from updaterd.core.channel import ChannelPointer
from updaterd.core.manifest import Manifest
from updaterd.core.routes import choose_route, codecs_since
from updaterd.core.stones import Stone, way
from updaterd.release.repository.catalog import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """What one kind of machine would fetch.

    Attributes:
        platform: of the machine.
        installed: label of the release that it has; None: none.
        bytes: of bundles, without metadata.
        route: how it gets there, in a few words.
    """

    platform: str
    installed: str | None
    bytes: int
    route: str


def fetches(
    manifest: Manifest,
    earlier: Iterable[Manifest],
    stones: Mapping[Stone, Manifest] | None = None,
) -> Iterator[Fetch]:
    """Yield what machines of a release's platform would fetch.

    With nothing installed, then with each of the earlier releases; as far as the
    oldest updaterd that may read the release can decompress.

    Args:
        manifest: of the release.
        earlier: releases that machines may have.
        stones: stepping stones of the channel, for machines that are further back.
    """
    yield _fetch([], manifest)
    for release in earlier:
        if release.seq >= manifest.from_seq_min:
            yield _fetch([release], manifest)
            continue
        usable = dict(stones or {})
        steps = way(release.seq, manifest.seq, manifest.from_seq_min, usable)
        if steps is None:
            yield Fetch(
                platform=manifest.platform,
                installed=release.version,
                bytes=0,
                route=f"no way leads to it: it is installed over seq "
                f"{manifest.from_seq_min} or later",
            )
            continue
        visited = [release, *(usable[step] for step in steps), manifest]
        hops = [
            _fetch(visited[:number], visited[number])
            for number in range(1, len(visited))
        ]
        over = ", ".join(step.version for step in steps)
        yield Fetch(
            platform=manifest.platform,
            installed=release.version,
            bytes=sum(hop.bytes for hop in hops),
            route=f"over {over}: {'; '.join(hop.route for hop in hops)}",
        )


def stones_of(
    catalog: Catalog, pointers: Iterable[ChannelPointer], platform: str
) -> dict[Stone, Manifest]:
    """Return the stepping stones of some channels for a platform."""
    stones = {}
    for stone in (stone for pointer in pointers for stone in pointer.stones):
        listed = catalog.find(stone.version, platform)
        if listed is not None and platform in stone.platforms:
            stones[stone] = catalog.manifest(listed)
    return stones


def _fetch(on_disk: Sequence[Manifest], manifest: Manifest) -> Fetch:
    """Return what a machine fetches of a release that has these on its disk."""
    version = on_disk[-1].version if on_disk else None
    have = {release.version: release.tree for release in on_disk}
    if manifest.tree in have.values():
        count, name = 0, "the same tree"
    else:
        codecs = codecs_since(manifest.min_updater)
        route = choose_route(manifest, have=have, codecs=codecs)
        count, name = route.bytes, route.name
    return Fetch(platform=manifest.platform, installed=version, bytes=count, route=name)
