# SPDX-License-Identifier: Apache-2.0
"""Old releases go, and what stands in their way is remembered for `status`.

What could not be deleted is tried again by each run, until it is gone.
"""

import json
from pathlib import Path

from updaterd.core.settings import Product
from updaterd.install import holders, prune
from updaterd.pipeline.services import Services
from updaterd.store.records import IN_THE_WAY
from updaterd.volumes import Obstacle

_GUARDED = "updaterd"


def tidy(product: Product, services: Services, left: tuple[Obstacle, ...] = ()) -> None:
    """Delete releases that are not kept any more; a refusal of the disk can wait.

    Args:
        product: the application.
        services: the machine.
        left: what else stands in the way, and is to be remembered.

    Power cut: as `prune.prune`; the next update, or the next run where something
        stood in the way, deletes the rest.
    """
    order = tuple(
        release.version for release in services.journal.releases(product.name)
    )
    # The guard of updaterd's own release watches on when its trial here is over.
    keep = max(2, product.keep) if product.name == _GUARDED else product.keep
    try:
        old = prune.prune(
            Path(product.root), order, keep=keep, holders=held_by(product, services)
        )
    except OSError as error:
        services.teller.say(f"old releases stay for now: {error}")
        return
    for version in old.free:
        services.journal.forget_release(product.name, version)
        services.teller.say(f"deleted old release {version}")
    for version, why in old.busy.items():
        services.teller.say(f"old release {version} stays: {why}")
    remember(product, services, (*left, *old.stuck))


def look_again(
    product: Product, services: Services, left: tuple[Obstacle, ...]
) -> None:
    """Delete what could not be deleted before, if anything could not.

    Args:
        product: the application.
        services: the machine.
        left: what this run could not delete of what dead runs left.
    """
    if services.journal.in_the_way(product.name):
        tidy(product, services, left)
        return
    root = Path(product.root)
    held = held_by(product, services) if prune.set_aside(root) else None
    stuck = prune.empty_trash(root, holders=held)
    if stuck := (*left, *stuck):
        remember(product, services, stuck)


def held_by(product: Product, services: Services) -> holders.Holders:
    """Return whose processes keep an old release."""
    return holders.find(product, services.manager.properties)


def remember(product: Product, services: Services, stuck: tuple[Obstacle, ...]) -> None:
    """Journal what stands in the way, for `status`; nothing is remembered as well."""
    told = tuple(dict.fromkeys(map(str, stuck)))
    if told == services.journal.in_the_way(product.name):
        return
    services.journal.set_meta(f"{IN_THE_WAY}{product.name}", json.dumps(told))
    for line in told:
        services.teller.say(f"in the way: {line}")
