# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys revoke`: remove a key from a role."""

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
    revoke = change.verb(verbs, "revoke", run, "remove a key from a role")
    revoke.add_argument("role", metavar="ROLE", help=change.ROLES)
    revoke.add_argument("--name", required=True, metavar="NAME", help="name of the key")
    revoke.add_argument(
        "--threshold", type=int, metavar="N", help="signatures needed from now on"
    )


def run(arguments: argparse.Namespace) -> int:
    """End a key's say."""

    def make(workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import edits

        keyid = workspace.keyring.entry(arguments.name).public.keyid
        return edits.revoke_key(arguments.role, keyid, arguments.threshold)

    done = f"{arguments.name} does not sign for {arguments.role} any more"
    return change.publish(arguments, make, done)
