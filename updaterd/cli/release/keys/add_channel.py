# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys add-channel`: delegate to a new channel."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.keys import change
from updaterd.cli.release.parts import (
    options,
)

if TYPE_CHECKING:
    from updaterd.release.keychange.edits import Change
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    channel = change.verb(verbs, "add-channel", run, "delegate to a new channel")
    channel.add_argument("product", metavar="PRODUCT", help="the product")
    channel.add_argument("channel", metavar="CHANNEL", help="name of the new channel")


def run(arguments: argparse.Namespace) -> int:
    """Delegate to a channel."""

    def make(workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import delegation

        return delegation.channel_changes(
            workspace, arguments.product, arguments.channel
        )

    where = f"{arguments.product}/{arguments.channel}"
    return change.publish(arguments, make, f"channel {where} is delegated to")
