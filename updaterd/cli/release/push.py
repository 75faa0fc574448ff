# SPDX-License-Identifier: Apache-2.0
"""`updaterd release push`: directories become a release that a channel offers."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    acts,
    building,
    delivery,
    feed,
    opening,
    options,
    output,
    trees,
)
from updaterd.cli.release.parts import steering as steer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from updaterd.release.build import Built
    from updaterd.release.channels.steering import Wish
    from updaterd.release.publish import Added, Order
    from updaterd.release.workspace import Workspace


MORE = """\
Builds the full bundle and deltas from the last releases, signs the manifest, points
the channel to it, publishes and announces. If it dies, run it again: it finishes, and
changes nothing that stands.

Several platforms go out together:
  updaterd release push --tree linux-x86_64=build/x86 --tree linux-aarch64=build/arm ...
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    push = options.command(
        commands, "push", run, "build, sign, publish and announce a release", MORE
    )
    trees.add_trees(push)
    options.add_release(push)
    trees.add_build(push)
    options.add_without(push)
    options.add_rollout(push)
    push.add_argument(
        "--dry-run",
        action="store_true",
        help="build and prove the release, print what would be signed and what "
        "machines would fetch, and change nothing in the repository",
    )
    options.add_feed(push)
    options.add_workspace(push)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.release import publish
    from updaterd.release.channels import manifests, steering

    workspace = opening.workspace(arguments)
    feed.check(arguments, workspace)
    roots = trees.trees(arguments, workspace)
    if not roots:
        return EXIT_USAGE
    orders = trees.orders(arguments, workspace, roots, arguments.channel)
    wish = steer.wish(arguments, arguments.version, back=False)
    publish.check_wish(workspace, orders, wish, now=opening.clock())
    opening.current(arguments, workspace)  # before hours of building
    built = building.build(workspace, roots, orders, keep=not arguments.dry_run)
    if arguments.dry_run:
        return _foretell(arguments, workspace, orders, built, wish)
    with workspace.locked():
        repository = opening.current(arguments, workspace)
        catalog = publish.catalog_of(workspace, repository, arguments.product)
        releases = [
            release
            if isinstance(release, publish.Added)
            else publish.enter(catalog, order, release)
            for order, release in zip(orders, built, strict=True)
        ]
        steered = steering.put(catalog, arguments.channel, wish)
        if steered.changed:
            catalog.point(manifests.carried(workspace, catalog, steered.pointer))
        acts.enter(arguments, workspace, repository, [steered], arguments.version)
        repository.commit()
    building.show(arguments, releases)
    print(f"published in channel {arguments.channel}")
    output.show_stones(steered.pointer)
    output.show_notes(arguments, steered)
    delivery.deliver(arguments, workspace)
    feed.announce(arguments, workspace, repository, steered.pointer)
    return 0


def _foretell(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    orders: "Sequence[Order]",
    built: "Sequence[Built | Added]",
    wish: "Wish",
) -> int:
    """Say what a push would do; nothing is signed, written or announced."""
    from dataclasses import asdict

    from updaterd.release import preview, publish
    from updaterd.release.channels import offers, steering
    from updaterd.release.repository.draft import Draft
    from updaterd.release.repository.releases import KEPT

    repository = opening.current(arguments, workspace)
    catalog = Draft(repository, workspace.public, arguments.product)
    releases = [
        release
        if isinstance(release, publish.Added)
        else publish.enter(catalog, order, release)
        for order, release in zip(orders, built, strict=True)
    ]
    steered = steering.put(catalog, arguments.channel, wish)
    if steered.changed:
        catalog.point(steered.pointer)
    fetches = [
        fetch
        for order, release in zip(orders, releases, strict=True)
        for fetch in preview.fetches(
            release.manifest,
            catalog.newest(order.platform, KEPT, release.manifest.seq),
            preview.stones_of(catalog, [steered.pointer], order.platform),
        )
    ]
    building.show(arguments, releases, done="would release")
    roles = repository.changed
    print(f"would sign: {', '.join(roles) or 'nothing'}")
    output.show_channel(steered.pointer)
    output.show_notes(arguments, steered)
    print("would be fetched by a machine that the channel reaches:")
    for fetch in fetches:
        installed = f"on {fetch.installed}" if fetch.installed else "with nothing"
        print(f"  {fetch.platform} {installed}: {fetch.bytes:,} bytes ({fetch.route})")
    others = set(offers.platforms_of(steered.pointer)) - {
        order.platform for order in orders
    }
    for platform in sorted(others):
        print(f"  {platform}: nothing of this push")
    print("dry run: nothing was signed, published or announced")
    output.answer(
        arguments,
        dry_run=True,
        would_sign=roles,
        fetches=[asdict(fetch) for fetch in fetches],
        untouched=sorted(others),
    )
    return 0
