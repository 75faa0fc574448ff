# SPDX-License-Identifier: Apache-2.0
"""Does a release fit this machine: is it what was asked for, and can it come now?"""

from collections.abc import Iterable
from dataclasses import replace

from updaterd.core import pacing
from updaterd.core.channel import ChannelPointer, Offer
from updaterd.core.decision import Facts
from updaterd.core.frozen import replaced
from updaterd.core.manifest import Manifest
from updaterd.core.names import version_key
from updaterd.errors import RejectedError, TransientError


def is_too_old(facts: Facts, from_seq_min: int) -> bool:
    """Tell whether what is installed is below what a release can be installed over.

    Where nothing is, nothing is in its way. What was here before updaterd, and is of
    unknown age, has seq 0.
    """
    return facts.installed_seq is not None and facts.installed_seq < from_seq_min


def check_manifest(
    manifest: Manifest, *, product: str, target: Offer, facts: Facts
) -> None:
    """Check that a signed manifest is the one that was asked for and fits here.

    Raises:
        RejectedError: another product, version, seq or platform; needs a newer
            updaterd; or raises the floor above itself.
        TransientError: it cannot be installed over what is installed, or its turn on
            this machine has not come.
    """
    expected = (product, target.version, target.seq, facts.platform)
    got = (manifest.product, manifest.version, manifest.seq, manifest.platform)
    if expected != got:
        raise RejectedError(
            f"asked for {expected}, the manifest says {got}",
            means="a signed manifest stands in the wrong place",
            do="tell the publisher; nothing was installed",
            code="wrong_target",
        )
    if version_key(manifest.min_updater) > version_key(facts.updater):
        raise RejectedError(
            f"{product} {target.version} needs updaterd {manifest.min_updater}, "
            f"this is {facts.updater}",
            do="update updaterd itself first",
            code="min_updater",
        )
    if manifest.floor_seq > manifest.seq:
        raise RejectedError(
            f"{product} {target.version} forbids itself: floor {manifest.floor_seq} "
            f"above its own seq {manifest.seq}",
            code="below_floor",
        )
    if is_too_old(facts, manifest.from_seq_min):
        raise TransientError(
            f"{product} {target.version} is installed over seq "
            f"{manifest.from_seq_min} or later, {facts.installed_version} has seq "
            f"{facts.installed_seq}",
            means="a release that leads there has to come first",
            do="nothing: the next look finds it",
            code="no_way",
        )
    turn = pacing.turn_at(manifest.pace, target, product, facts)
    if facts.installed_seq is not None and turn is not None and facts.now < turn:
        raise TransientError(
            f"{product} {target.version} has a pace ({manifest.pace}), and this "
            "machine's turn has not come",
            do="nothing: the next look finds when it comes",
            code="paced",
        )


def limited(pointer: ChannelPointer, version: str, from_seq_min: int) -> ChannelPointer:
    """Return the pointer where a release can be installed from this seq on only.

    For pointers that say less than its manifest, whose word counts.
    """
    return replace(
        pointer,
        releases=tuple(
            replace(offer, from_seq_min=from_seq_min)
            if offer.version == version
            else offer
            for offer in pointer.releases
        ),
        stones=tuple(
            replaced(stone, from_seq_min=from_seq_min)
            if stone.version == version
            else stone
            for stone in pointer.stones
        ),
    )


def restricted(
    pointer: ChannelPointer, version: str, platforms: Iterable[str]
) -> ChannelPointer:
    """Return the pointer where a release is offered to these platforms only.

    For pointers that do not say it: which manifests are signed says it, too.
    """
    only = tuple(sorted(platforms))
    offers = (
        replace(offer, platforms=only) if offer.version == version else offer
        for offer in pointer.releases
    )
    return replace(pointer, releases=tuple(offers))
