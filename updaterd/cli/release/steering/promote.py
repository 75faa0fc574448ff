# SPDX-License-Identifier: Apache-2.0
"""`updaterd release promote`: offer in one channel what another offers."""

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
    promote = options.command(
        commands, "promote", run, "offer in one channel what another offers"
    )
    promote.add_argument("--product", required=True, metavar="NAME", help="the product")
    promote.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="CHANNEL",
        help="channel to take the offers of",
    )
    promote.add_argument(
        "--to",
        dest="channel",
        required=True,
        metavar="CHANNEL",
        help="channel that gets them",
    )
    options.add_without(promote)
    options.add_rollout(promote)
    steer.add_proposal(promote)
    steer.add_options(promote, to=False)  # its --to is a channel


def run(arguments: argparse.Namespace) -> int:
    """Offer in one channel what another offers."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels import steering

        wish = steer.wish(arguments, "", back=False)
        wish = steering.promotion(catalog, arguments.source, wish)
        return steering.put(catalog, arguments.channel, wish)

    return steer.steer(arguments, change)
