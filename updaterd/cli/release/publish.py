# SPDX-License-Identifier: Apache-2.0
"""`updaterd release publish`: point a channel to a release."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    options,
)
from updaterd.cli.release.parts import steering as steer

if TYPE_CHECKING:
    from updaterd.release.channels.steering import Steered
    from updaterd.release.repository.catalog import Catalog


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    publish = options.command(
        commands,
        "publish",
        run,
        "point a channel to a release",
        "An older release is allowed: machines step back to it, all of them, not below "
        "the\nfloor. What is on offer already stays as it is.\n",
    )
    options.add_release(publish)
    options.add_without(publish)
    options.add_rollout(publish)
    steer.add_options(publish)


def run(arguments: argparse.Namespace) -> int:
    """Point a channel to a release."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels import steering

        wish = steer.wish(arguments, arguments.version, back=True)
        return steering.put(catalog, arguments.channel, wish)

    return steer.steer(arguments, change)
