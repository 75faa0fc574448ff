# SPDX-License-Identifier: Apache-2.0
"""`updaterd release push`: directories become a release that a channel offers."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    building,
    feed,
    opening,
    options,
    output,
    trees,
)

if TYPE_CHECKING:
    pass


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
    options.add_feed(push)
    options.add_workspace(push)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.release import publish
    from updaterd.release.channels import steering

    workspace = opening.workspace(arguments)
    feed.check(arguments, workspace)
    roots = trees.trees(arguments, workspace)
    if not roots:
        return EXIT_USAGE
    orders = trees.orders(arguments, workspace, roots, arguments.channel)
    wish = steering.Wish(
        version=arguments.version,
        permille=arguments.permille,
        window_s=arguments.window_s,
        urgency="critical" if arguments.critical else "normal",
        without=arguments.without,
    )
    publish.check_wish(workspace, orders, wish, now=opening.clock())
    opening.current(arguments, workspace)  # before hours of building
    built = building.build(workspace, roots, orders)
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
            catalog.point(steered.pointer)
        repository.commit()
    building.show(arguments, releases)
    print(f"published in channel {arguments.channel}")
    output.show_notes(arguments, steered)
    feed.announce(arguments, workspace, repository, steered.pointer)
    return 0
