# SPDX-License-Identifier: Apache-2.0
"""`updaterd release pause` and `resume`: stop installing from a channel, and go on."""

import argparse
from dataclasses import replace
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
    for name, summary in (
        ("pause", "stop installing from a channel"),
        ("resume", "install from a channel again"),
    ):
        parser = options.command(commands, name, run, summary)
        parser.add_argument(
            "--product", required=True, metavar="NAME", help="the product"
        )
        parser.add_argument(
            "--channel", required=True, metavar="NAME", help="the channel"
        )
        parser.set_defaults(paused=name == "pause")
        steer.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pause or resume."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels.steering import Steered

        before = catalog.pointer(arguments.channel)
        pointer = replace(before, paused=arguments.paused)
        return Steered(before=before, pointer=pointer)

    return steer.steer(arguments, change)
