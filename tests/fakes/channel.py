# SPDX-License-Identifier: Apache-2.0
"""A channel as its publisher steers it: the production rules, manifests made up."""

from dataclasses import replace

from fakes.repository import PLATFORM, Publisher, manifest_of

from updaterd.release import publish
from updaterd.release.channels import steering, widening, withdrawal

ARM = "linux-aarch64"


class Channel:
    """One product of a publisher; every method publishes."""

    def __init__(self, publisher: Publisher, product: str = "acme"):
        self.publisher = publisher
        self.product = product

    def open(self):
        repository = self.publisher.open()
        catalog = publish.catalog_of(self.publisher.space, repository, self.product)
        return repository, catalog

    def add(self, version, *platforms, seq=None, **changes):
        """Enter a release; another platform of one gets its seq."""
        repository, catalog = self.open()
        for platform in platforms or (PLATFORM,):
            known = catalog.find(version) or catalog.withdrawn(version)
            place = known.seq if known else seq or catalog.next_seq()
            manifest = manifest_of(self.product, version, place, **changes)
            catalog.add(replace(manifest, platform=platform))
        repository.commit()

    def put(self, version, *, name="stable", **wish):
        return self._steer(
            name,
            lambda c: steering.put(c, name, steering.Wish(version=version, **wish)),
        )

    def push(
        self,
        version,
        *platforms,
        name="stable",
        seq=None,
        floor_seq=0,
        from_seq_min=0,
        pace=None,
        **wish,
    ):
        self.add(
            version,
            *platforms,
            seq=seq,
            floor_seq=floor_seq,
            from_seq_min=from_seq_min,
            pace=pace,
        )
        return self.put(version, name=name, **wish)

    def publish(self, version, *, name="stable", **wish):
        return self.put(version, name=name, back=True, **wish)

    def promote(self, source, *, name="stable", **wish):
        def change(catalog):
            pointer = steering.promotion(
                catalog, source, steering.Wish(version="", **wish)
            )
            return steering.put(catalog, name, pointer)

        return self._steer(name, change)

    def rollout(self, permille, *, name="stable"):
        return self._steer(
            name, lambda c: widening.reach(c, name, permille, force=True)
        )

    def pause(self, name="stable", *, paused=True):
        repository, catalog = self.open()
        catalog.point(replace(catalog.pointer(name), paused=paused))
        repository.commit()

    def yank(self, version):
        repository, catalog = self.open()
        changed = withdrawal.yank(catalog, version)
        repository.commit()
        return changed

    def pointer(self, name="stable"):
        return self.open()[1].pointer(name)

    def says(self, name="stable"):
        """Return what the channel offers: version, reach, platforms."""
        spelled = steering.spelled_out(self.open()[1], name)
        return [
            (offer.version, offer.rollout.permille, list(offer.platforms))
            for offer in spelled.releases
        ]

    def _steer(self, name, change):
        repository, catalog = self.open()
        steered = change(catalog)
        if steered.changed:
            catalog.point(steered.pointer)
        repository.commit()
        return steered
