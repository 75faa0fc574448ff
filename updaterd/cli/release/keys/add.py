# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys add`: let one more key sign for a role."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.keys import change
from updaterd.cli.release.parts import (
    options,
)
from updaterd.core import layout

if TYPE_CHECKING:
    from updaterd.release.keychange.edits import Change
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    add = change.verb(verbs, "add", run, "let one more key sign for a role")
    add.add_argument("role", metavar="ROLE", help=change.ROLES)
    add.add_argument("--name", required=True, metavar="NAME", help="name of the key")
    change.add_source(add)
    add.add_argument(
        "--threshold", type=int, metavar="N", help="signatures needed from now on"
    )


def run(arguments: argparse.Namespace) -> int:
    """Let a key sign for a role."""

    def make(workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import edits

        entry = change.source(arguments, workspace, arguments.name)
        return edits.add_key(arguments.role, entry.public, arguments.threshold)

    done = f"{arguments.name} signs for {arguments.role}"
    if (arguments.threshold or 1) > 1:
        done += (
            f", which needs {arguments.threshold} signatures from now on. Keep its "
            "keys at different places"
        )
        if layout.is_channel(arguments.role):
            done += (
                "; its changes are proposed and approved from then on (`updaterd "
                "release approve --help`)"
            )
    return change.publish(arguments, make, done)
