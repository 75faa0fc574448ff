# SPDX-License-Identifier: Apache-2.0
"""`updaterd release verify`: check every signature, manifest and blob."""

import argparse
import sys

from updaterd.cli.release.parts import (
    opening,
    options,
    output,
)


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    verify = options.command(
        commands, "verify", run, "check every signature, manifest and blob"
    )
    verify.add_argument(
        "--deep",
        action="store_true",
        help="hash every blob, and apply it as a machine would",
    )
    options.add_workspace(verify)


def run(arguments: argparse.Namespace) -> int:
    """Check everything."""
    from updaterd.cli import EXIT_ERROR
    from updaterd.release.upkeep import verification

    workspace = opening.workspace(arguments)
    repository = opening.published(workspace)
    problems = verification.verify(workspace, repository, deep=arguments.deep)
    for line in problems:
        print(line, file=sys.stderr)
    output.answer(arguments, problems=problems)
    print(f"{len(problems)} problems" if problems else "all well")
    return EXIT_ERROR if problems else 0
