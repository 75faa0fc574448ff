# SPDX-License-Identifier: Apache-2.0
"""Withdrawing a release: out of every channel and its role, and what comes instead."""

from collections.abc import Collection
from dataclasses import replace

from updaterd.core.channel import ChannelPointer, Offer
from updaterd.errors import RejectedError
from updaterd.release.channels import bases, offers
from updaterd.release.channels.steering import (
    Steered,
    check_floor,
    laid,
    spelled_out,
)
from updaterd.release.repository.catalog import Catalog
from updaterd.release.repository.releases import Listed


def yank(catalog: Catalog, version: str, to: str | None = None) -> list[Steered]:
    """Withdraw a release from every channel and from its role.

    A channel that lacks something for everybody then goes back to the newest release
    that it offered them before, or to the one that is named.

    Args:
        catalog: of the product.
        version: the release.
        to: what channels that offered it offer to everybody instead.

    Returns:
        The channels that change.

    Raises:
        BrokenError: there is no such release.
        RejectedError: what is named is the release itself, or below the floor of a
            channel that offers it.
    """
    entry = catalog.require(version)
    if to == version:
        raise RejectedError(
            f"{version} is what is to be withdrawn",
            do="name another release, or none: each channel goes back by itself",
            code="usage",
        )
    instead = catalog.require(to) if to is not None else None
    names = catalog.channels()
    spelled = {name: spelled_out(catalog, name) for name in names}
    made_for = {name: offers.platforms_of(spelled[name]) for name in names}
    catalog.drop(version)
    channels = []
    for name in names:
        before = catalog.pointer(name)
        offered = spelled[name].releases
        remaining = tuple(offer for offer in offered if offer.version != version)
        if len(remaining) < len(offered):
            if instead is not None:
                remaining = _with_instead(
                    catalog, before, remaining, instead, made_for[name]
                )
            steered = _refilled(
                catalog, before, remaining, made_for=made_for[name], seq=entry.seq
            )
        else:  # it may have led to what is on offer
            steered = laid(catalog, before, before, [])
        if not steered.changed:
            continue
        channels.append(steered)
        catalog.point(channels[-1].pointer)
    return channels


def _with_instead(
    catalog: Catalog,
    before: ChannelPointer,
    remaining: tuple[Offer, ...],
    instead: Listed,
    made_for: Collection[str],
) -> tuple[Offer, ...]:
    """Return the offers of a channel with one for everybody that was named.

    Raises:
        RejectedError: its machines would refuse it.
    """
    check_floor(catalog, before.channel, instead.version, instead.seq)
    platforms = set(catalog.releases()[1][instead.version]) & set(made_for)
    changed = offers.offer(
        replace(before, releases=remaining),
        instead.version,
        instead.seq,
        platforms=platforms or made_for,
        pace=catalog.pace(instead.version, platforms),
    )
    return changed.releases


def _refilled(
    catalog: Catalog,
    before: ChannelPointer,
    remaining: tuple[Offer, ...],
    *,
    made_for: Collection[str],
    seq: int,
) -> Steered:
    """Return a channel without a release, with what its machines get instead."""
    complete, notes = list(remaining), []
    bare = replace(before, releases=remaining)
    for platform, lowest in offers.baseless(bare, made_for).items():
        below = min(lowest or seq, seq)
        base = bases.base_of(catalog, before.channel, platform, below)
        if base is not None:
            complete.append(base)
            continue
        notes.append(
            f"nothing that {before.product}/{before.channel} offered before is left "
            f"for {platform}: machines that have the withdrawn release keep it until "
            "the next push"
        )
    whole = replace(before, releases=offers.needed(bases.merged(complete)))
    return laid(catalog, before, whole, notes)
