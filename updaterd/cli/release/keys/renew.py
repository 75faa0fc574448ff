# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys renew`: sign root and targets anew."""

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
    renew = change.verb(verbs, "renew", run, "sign root and targets anew, unchanged")
    renew.add_argument(
        "roles",
        nargs="+",
        choices=("root", "targets"),
        metavar="ROLE",
        help="the roles to sign anew",
    )


def run(arguments: argparse.Namespace) -> int:
    """Sign root or targets anew."""

    def make(_workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import edits

        return edits.renew(*arguments.roles)

    return change.publish(arguments, make, f"renewed: {', '.join(arguments.roles)}")
