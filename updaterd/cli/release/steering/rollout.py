# SPDX-License-Identifier: Apache-2.0
"""`updaterd release rollout`: widen or narrow the newest rollout."""

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
    rollout = options.command(
        commands, "rollout", run, "widen (or narrow) the newest rollout"
    )
    rollout.add_argument("--product", required=True, metavar="NAME", help="the product")
    rollout.add_argument("--channel", required=True, metavar="NAME", help="the channel")
    rollout.add_argument(
        "--permille",
        type=options.PERMILLE,
        required=True,
        metavar="N",
        help="machines of 1000 that get it from now on",
    )
    rollout.add_argument(
        "--window-s",
        type=options.WINDOW_S,
        metavar="SECONDS",
        help="spread the starts of machines over this time (default: as it was)",
    )
    steer.add_options(rollout)


def run(arguments: argparse.Namespace) -> int:
    """Widen or narrow the newest rollout."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels import steering

        return steering.reach(
            catalog, arguments.channel, arguments.permille, arguments.window_s
        )

    return steer.steer(arguments, change)
