# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys cancel`: drop the change that waits for signatures."""

import argparse

from updaterd.cli.release.keys import change
from updaterd.cli.release.parts import (
    opening,
    options,
)


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    change.verb(verbs, "cancel", run, "drop the change that waits for signatures")


def run(arguments: argparse.Namespace) -> int:
    """Drop the waiting change."""
    from updaterd.release.keychange import change as keychange

    workspace = opening.workspace(arguments)
    with workspace.locked():
        keychange.cancel(workspace)
        keychange.give_back(workspace, opening.published(workspace))
    print("dropped")
    return 0
