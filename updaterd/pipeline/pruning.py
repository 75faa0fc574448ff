# SPDX-License-Identifier: Apache-2.0
"""Delete old releases, and remember for `status` what stands in the way of that.

What could not be deleted is tried again by each run, until it is gone.
"""

import json

from updaterd.core.settings import ITSELF
from updaterd.files.volumes import Obstacle
from updaterd.install import holders, prune
from updaterd.pipeline.run import Run
from updaterd.store.records import IN_THE_WAY


def tidy(run: Run, obstacles: tuple[Obstacle, ...] = ()) -> None:
    """Delete releases that are not kept any more; a refusal of the disk can wait.

    Args:
        run: one product on this machine.
        obstacles: what else stands in the way, and is to be remembered.

    Power cut: as `prune.prune`; the next update, or the next run where something
        stood in the way, deletes the rest.
    """
    order = tuple(release.version for release in run.journal.releases(run.name))
    # The guard of updaterd's own release watches on when its trial here is over.
    keep = max(2, run.product.keep) if run.name == ITSELF else run.product.keep
    try:
        old = prune.prune(run.root, order, keep=keep, holders=held_by(run))
    except OSError as error:
        run.say(f"old releases stay until the next run: {error}")
        return
    for version in old.free:
        run.journal.forget_release(run.name, version)
        run.say(f"deleted old release {version}")
    for version, why in old.busy.items():
        run.say(f"old release {version} stays: {why}")
    remember(run, (*obstacles, *old.stuck))


def look_again(run: Run, obstacles: tuple[Obstacle, ...]) -> None:
    """Delete what could not be deleted before, if anything could not.

    Args:
        run: one product on this machine.
        obstacles: what this run could not delete of what dead runs left.
    """
    if run.journal.in_the_way(run.name):
        tidy(run, obstacles)
        return
    root = run.root
    held = held_by(run) if prune.set_aside(root) else None
    stuck = prune.empty_trash(root, holders=held)
    if stuck := (*obstacles, *stuck):
        remember(run, stuck)


def held_by(run: Run) -> holders.Holders:
    """Return whose processes keep an old release."""
    return holders.find(run.product, run.services.manager.properties)


def remember(run: Run, stuck: tuple[Obstacle, ...]) -> None:
    """Journal what stands in the way, for `status`; nothing is remembered as well."""
    lines = tuple(dict.fromkeys(map(str, stuck)))
    if lines == run.journal.in_the_way(run.name):
        return
    run.journal.set_meta(f"{IN_THE_WAY}{run.name}", json.dumps(lines))
    for line in lines:
        run.say(f"in the way: {line}")
