# SPDX-License-Identifier: Apache-2.0
"""`updaterd release rollout`: whom the newest offer reaches, by chance and by tag."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    options,
    output,
)
from updaterd.cli.release.parts import steering as steer

if TYPE_CHECKING:
    from updaterd.release.channels.steering import Steered
    from updaterd.release.repository.catalog import Catalog


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    rollout = options.command(
        commands,
        "rollout",
        run,
        "widen (or, with --force, narrow) the newest rollout",
        "A machine is reached if its cohort is below N, or if its owner gave it one of "
        "the tags.\nA pace that the release key signed goes before: this can only be "
        "slower.\n",
    )
    rollout.add_argument("--product", required=True, metavar="NAME", help="the product")
    rollout.add_argument("--channel", required=True, metavar="NAME", help="the channel")
    rollout.add_argument(
        "--permille",
        type=options.PERMILLE,
        metavar="N",
        help="machines of 1000 that get it from now on (default: as it was)",
    )
    rollout.add_argument(
        "--tags",
        type=options.TAGS,
        metavar="TAG,...",
        help='machines with one of these tags get it, too; "" for none (default: as it '
        "was)",
    )
    rollout.add_argument(
        "--force",
        action="store_true",
        help="also where it reaches fewer machines than before",
    )
    rollout.add_argument(
        "--window-s",
        type=options.WINDOW_S,
        metavar="SECONDS",
        help="spread the starts of machines over this time (default: as it was)",
    )
    steer.add_proposal(rollout)
    steer.add_options(rollout)


def run(arguments: argparse.Namespace) -> int:
    """Change whom the newest offer reaches."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels import widening

        steered = widening.reach(
            catalog,
            arguments.channel,
            arguments.permille,
            arguments.window_s,
            tags=arguments.tags,
            force=arguments.force,
        )
        return steer.by_hand(steered)

    values = arguments.permille, arguments.tags, arguments.window_s
    if all(value is None for value in values):
        return output.usage(arguments, "name --permille, --tags or --window-s")
    return steer.steer(arguments, change)
