# SPDX-License-Identifier: Apache-2.0
"""What everybody else gets: the release beneath a rollout, as offered before."""

from collections.abc import Iterable
from dataclasses import replace

from updaterd.core.channel import EVERYBODY, ChannelPointer, Offer, Rollout
from updaterd.core.rollout import salt_of
from updaterd.release.repository.catalog import Catalog


def above(pointer: ChannelPointer) -> int:
    """Return a place above all that a channel offers."""
    return max((offer.seq for offer in pointer.releases), default=0) + 1


def merged(several: Iterable[Offer]) -> list[Offer]:
    """Return the offers with those of one release and one reach made one."""
    merged: dict[str, Offer] = {}
    for offer in several:
        known = merged.get(offer.version)
        if known is None:
            merged[offer.version] = offer
            continue
        names = {*(known.platforms or ()), *(offer.platforms or ())}
        merged[offer.version] = replace(known, platforms=tuple(sorted(names)))
    return list(merged.values())


def base_of(catalog: Catalog, channel: str, platform: str, below: int) -> Offer | None:
    """Return the newest release that was everybody's here, under a place; or None."""
    history, floor = catalog.offered(channel), catalog.floor(channel)
    for entry in catalog.listed():
        if entry.platform != platform or not floor <= entry.seq < below:
            continue
        if platform in history.releases.get(entry.version, ()):
            salt = salt_of(catalog.product, entry.version, entry.seq)
            whole = Rollout(permille=EVERYBODY, salt=salt)
            return Offer(
                version=entry.version,
                seq=entry.seq,
                rollout=whole,
                platforms=(platform,),
            )
    return None


def had_it_all(catalog: Catalog, changed: ChannelPointer, platform: str) -> bool:
    """Tell whether what is on offer only in part now was everybody's before."""
    history = catalog.offered(changed.channel)
    return any(
        platform in history.releases.get(offer.version, ())
        for offer in changed.releases
        if offer.is_for(platform)
    )
