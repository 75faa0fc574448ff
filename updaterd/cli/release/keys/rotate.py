# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys rotate`: replace a key wherever it signs."""

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
    rotate = change.verb(
        verbs, "rotate", run, "replace a key by a new one wherever it signs"
    )
    rotate.add_argument("name", metavar="NAME", help="as `keys list` shows it")
    change.add_source(rotate)


def run(arguments: argparse.Namespace) -> int:
    """Replace a key."""

    def make(workspace: "Workspace", repository: "Repository") -> "Change":
        from updaterd.release.keychange import change as keychange
        from updaterd.release.keychange import edits

        name = arguments.name
        old = keychange.successor(workspace, repository, name)
        workspace.keyring.retire(name)
        new = change.source(arguments, workspace, name)
        return edits.replace_key(old.public, new.public)

    return change.publish(arguments, make, f"{arguments.name} is replaced")
