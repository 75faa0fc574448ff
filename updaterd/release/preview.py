# SPDX-License-Identifier: Apache-2.0
"""What machines would fetch of a release, before it is published."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from updaterd.core.manifest import Manifest
from updaterd.core.routes import choose_route, codecs_since


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


def fetches(manifest: Manifest, earlier: Iterable[Manifest]) -> Iterator[Fetch]:
    """Yield what machines of a release's platform would fetch.

    With nothing installed, then with each of the earlier releases; as far as the
    oldest updaterd that may read the release can decompress.
    """
    codecs = codecs_since(manifest.min_updater)
    trees: list[tuple[str | None, dict[str, str]]] = [(None, {})]
    trees += [(release.version, {release.version: release.tree}) for release in earlier]
    for version, have in trees:
        if manifest.tree in have.values():
            yield Fetch(
                platform=manifest.platform,
                installed=version,
                bytes=0,
                route="the same tree",
            )
            continue
        route = choose_route(manifest, have=have, codecs=codecs)
        yield Fetch(
            platform=manifest.platform,
            installed=version,
            bytes=route.bytes,
            route=route.name,
        )
