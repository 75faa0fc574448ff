# SPDX-License-Identifier: Apache-2.0
"""Changing what one channel offers, and publishing that."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    acts,
    delivery,
    feed,
    opening,
    options,
    output,
)
from updaterd.core.channel import EVERYBODY

if TYPE_CHECKING:
    from updaterd.release.channels.steering import Steered, Wish
    from updaterd.release.repository.catalog import Catalog
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


def steer(
    arguments: argparse.Namespace,
    change: "Callable[[Catalog], Steered]",
) -> int:
    """Change what one channel says, publish and announce it; or only propose it."""
    from updaterd.release import publish
    from updaterd.release.channels import manifests

    workspace = opening.workspace(arguments)
    proposes = getattr(arguments, "propose", None) is not None
    if not proposes:
        feed.check(arguments, workspace)
    with workspace.locked():
        repository = opening.current(arguments, workspace)
        catalog = publish.catalog_of(workspace, repository, arguments.product)
        steered = change(catalog)
        if proposes:
            return _propose(arguments, workspace, repository, catalog, steered)
        if steered.changed:
            catalog.point(manifests.carried(workspace, catalog, steered.pointer))
        acts.enter(arguments, workspace, repository, [steered])
        repository.commit()
    output.show_channel(steered.pointer)
    output.show_notes(arguments, steered)
    delivery.deliver(arguments, workspace)
    feed.announce(arguments, workspace, repository, steered.pointer)
    return 0


def by_hand(steered: "Steered", *, resumed: bool = False) -> "Steered":
    """Return what a person does to a channel, with its plan moved along."""
    from updaterd.core.plan import BY_HAND
    from updaterd.release.rollouts import plans

    now = int(opening.clock().timestamp())
    pointer = plans.by_hand(steered.pointer, now=now, resumed=resumed)
    plan, notes = pointer.plan, steered.notes
    if plan is not None and plan.state == BY_HAND:
        note = (
            f"{plan.version} is {plan.reason}: `release watch` leaves it alone until "
            "`release rollout` moves it to a step of its plan"
        )
        notes = (*notes, note)
    return replace(steered, pointer=pointer, notes=notes)


def _propose(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    repository: "Repository",
    catalog: "Catalog",
    steered: "Steered",
) -> int:
    """Sign what a channel is to say with the keys that are here, and publish nothing.

    What would change nothing is a new edition all the same: that renews the role.
    """
    from updaterd import durable
    from updaterd.release.channels import approval, manifests

    catalog.point(manifests.carried(workspace, catalog, steered.pointer))
    acts.enter(arguments, workspace, repository, [steered])
    raw = approval.propose(repository, steered.pointer)
    durable.write_file(arguments.propose, raw, mode=0o644)
    output.show_channel(steered.pointer)
    output.show_notes(arguments, steered)
    print(
        f"proposed, not published: {arguments.propose}; next, where another key of the "
        f"channel is: `updaterd release approve {arguments.propose.name}`"
    )
    output.answer(arguments, proposed=str(arguments.propose))
    return 0


def add_proposal(parser: argparse.ArgumentParser) -> None:
    """Declare that a change may be proposed only."""
    parser.add_argument(
        "--propose",
        type=Path,
        metavar="FILE",
        help="publish nothing: sign with the keys that are here, and write the change "
        "into FILE, for `updaterd release approve` where another key of the channel is",
    )


def wish(
    arguments: argparse.Namespace, version: str, *, back: bool, product: str = ""
) -> "Wish":
    """Return what the arguments want a channel to offer.

    Args:
        arguments: of the command.
        version: of the release.
        back: the channel may go back to it.
        product: its product, where the arguments do not say.

    Raises:
        BrokenError: there is no such plan, or both say whom it reaches.
    """
    from updaterd.errors import BrokenError
    from updaterd.release.channels.steering import Wish
    from updaterd.release.rollouts import plans

    plan = None
    by_options = arguments.critical or arguments.tags or arguments.permille < EVERYBODY
    if arguments.channel is not None and (arguments.plan or not by_options):
        plan = plans.of_push(
            arguments.repo,
            arguments.plan,
            product=product or arguments.product,
            channel=arguments.channel,
        )
    if plan is not None:
        if arguments.permille < EVERYBODY or arguments.tags:
            raise BrokenError(
                "a plan says how many machines each step reaches",
                means="nothing was published",
                do="leave --permille out, or --plan",
                code="plan",
            )
        now = int(opening.clock().timestamp())
        plan = replace(plan, since=now)
    return Wish(
        version=version,
        permille=arguments.permille if plan is None else plan.now_at.permille,
        plan=plan,
        window_s=arguments.window_s,
        tags=arguments.tags if plan is None else plan.now_at.tags,
        urgency="critical" if arguments.critical else "normal",
        without=arguments.without,
        back=back,
    )


def add_options(parser: argparse.ArgumentParser, *, to: bool = True) -> None:
    """Declare whom to tell and where the workspace is."""
    options.add_feed(parser, to=to)
    options.add_workspace(parser)
