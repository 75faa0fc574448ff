# SPDX-License-Identifier: Apache-2.0
"""`updaterd release add`: directories become a release that no channel offers yet."""

import argparse

from updaterd.cli.release.parts import (
    building,
    delivery,
    opening,
    options,
    trees,
)


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    add = options.command(
        commands,
        "add",
        run,
        "build and sign a release without pointing a channel to it",
        "Another platform of a release gets the seq of the first. Channels offer it "
        "for that\nplatform once it is pushed or published there.\n",
    )
    trees.add_trees(add)
    options.add_release(add, channel=False)
    trees.add_build(add)
    options.add_compare(add)
    options.add_workspace(add)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.release import publish

    workspace = opening.workspace(arguments)
    roots = trees.trees(arguments, workspace)
    if not roots:
        return EXIT_USAGE
    orders = trees.orders(arguments, workspace, roots)
    built = building.build(workspace, roots, orders)
    releases = [release for release in built if isinstance(release, publish.Added)]
    if len(releases) < len(built):
        with workspace.locked():
            repository = opening.current(arguments, workspace)
            catalog = publish.catalog_of(workspace, repository, arguments.product)
            releases = [
                release
                if isinstance(release, publish.Added)
                else publish.enter(catalog, order, release)
                for order, release in zip(orders, built, strict=True)
            ]
            repository.commit()
        delivery.deliver(arguments, workspace)
        print("no channel offers what is new yet: `updaterd release publish`")
    building.show(arguments, releases)
    return 0
