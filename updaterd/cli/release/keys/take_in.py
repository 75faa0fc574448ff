# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys import`: read the signed files and publish the change."""

import argparse
from pathlib import Path

from updaterd.cli.release.keys import change
from updaterd.cli.release.parts import (
    delivery,
    opening,
    options,
)


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    taken_in = change.verb(
        verbs, "import", run, "read the signed files and publish the change"
    )
    taken_in.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files that were signed elsewhere",
    )


def run(arguments: argparse.Namespace) -> int:
    """Take signatures back."""
    from updaterd.release.keychange import change as keychange

    workspace = opening.workspace(arguments)
    with workspace.locked():
        repository = opening.current(arguments, workspace)
        lacking = keychange.take_in(workspace, repository, arguments.files)
    change.show(arguments, lacking, "published")
    if not lacking:
        delivery.deliver(arguments, workspace)
    return 0
