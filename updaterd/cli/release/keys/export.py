# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys export`: write the files that must be signed to a folder."""

import argparse
from pathlib import Path

from updaterd.cli.release.keys import change
from updaterd.cli.release.parts import (
    opening,
    options,
    output,
)


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    export = change.verb(
        verbs, "export", run, "write the files that must be signed to a folder"
    )
    export.add_argument(
        "folder", type=Path, metavar="DIR", help="folder to write the files to"
    )


def run(arguments: argparse.Namespace) -> int:
    """Copy out what is to be signed."""
    from updaterd.release.keychange import change as keychange

    workspace = opening.workspace(arguments)
    paths = keychange.export(workspace, arguments.folder)
    for path in paths:
        print(path)
    output.answer(arguments, files=[str(path) for path in paths])
    return 0
