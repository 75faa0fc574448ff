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
        parser.add_argument(
            "--reason",
            type=_line,
            default="",
            metavar="TEXT",
            help="why, one line: "
            + (
                "signed, and shown by `updaterd status` on machines"
                if name == "pause"
                else "kept with who did it"
            ),
        )
        parser.set_defaults(paused=name == "pause")
        steer.add_proposal(parser)
        steer.add_options(parser)


def _line(text: str) -> str:
    """Read one line of text.

    Raises:
        argparse.ArgumentTypeError: it is none, or too long.
    """
    from updaterd.core.channel import MAX_REASON

    if not text.isprintable() or len(text) > MAX_REASON:
        raise argparse.ArgumentTypeError(
            f"a reason is one line of at most {MAX_REASON} characters"
        )
    return text


def run(arguments: argparse.Namespace) -> int:
    """Pause or resume."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels.steering import Steered

        before = catalog.pointer(arguments.channel)
        reason = arguments.reason if arguments.paused else ""
        pointer = replace(before, paused=arguments.paused, reason=reason)
        steered = Steered(before=before, pointer=pointer)
        if before.halted and not arguments.paused:
            return steer.by_hand(steered, resumed=True)
        return steered

    return steer.steer(arguments, change)
