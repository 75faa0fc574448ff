# SPDX-License-Identifier: Apache-2.0
"""Releases on disk that have run here: those that a roll back can return to.

A release that was installed here at some time is known to run on this machine, also
when it failed a later trial: what failed then may have been something else.
"""

from pathlib import Path

from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Product
from updaterd.install import stage
from updaterd.store.records import Failed, Records, Release


@dataclass(frozen=True, slots=True)
class Earlier:
    """A whole release that has run here; `failed`: what is held against it."""

    release: Release
    failed: Failed | None = None

    @property
    def version(self) -> str:
        """Return its label."""
        return self.release.version


def all_of(product: Product, records: Records, *, running: str) -> tuple[Earlier, ...]:
    """Return every whole release that has run here, but the running one.

    First what `previous` names, then the last that ran; those that are blocked after
    all others.
    """
    disk = stage.look(Path(product.root))
    failed = records.failed(product.name)
    listed = {release.version: release for release in records.releases(product.name)}
    named = dict.fromkeys((disk.previous, *records.ran(product.name)))
    entries = [
        Earlier(listed.get(version, Release(version, 0, "")), failed.get(version))
        for version in named
        if version is not None and version in disk.whole and version != running
    ]
    return tuple(sorted(entries, key=lambda entry: entry.failed is not None))


def choices(product: Product, records: Records, *, running: str) -> tuple[Earlier, ...]:
    """Return where a roll back leads that names no release, the best first.

    Not to a blocked one that is newer than what runs: it was left for this one.
    """
    listed = {release.version: release for release in records.releases(product.name)}
    current = listed.get(running)
    return tuple(
        entry
        for entry in all_of(product, records, running=running)
        if entry.failed is None
        or (current is not None and entry.release.seq < current.seq)
    )
