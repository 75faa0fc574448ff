# SPDX-License-Identifier: Apache-2.0
"""`updaterd release gc`: delete files that nothing refers to."""

import argparse
from datetime import timedelta

from updaterd.cli.release.parts import (
    opening,
    options,
    output,
)


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    gc = options.command(
        commands,
        "gc",
        run,
        "delete files that nothing refers to",
        "What is not of the repository's making (a site's pages) is never touched.\n",
    )
    gc.add_argument(
        "--older-than-days",
        type=float,
        default=7.0,
        metavar="DAYS",
        help="days since nothing refers to them, as `gc` and `refresh` noted it "
        "(default, and at least: 7, as long as a machine's metadata counts)",
    )
    gc.add_argument("--dry-run", action="store_true", help="only list them")
    options.add_workspace(gc)


def run(arguments: argparse.Namespace) -> int:
    """Delete what nothing refers to."""
    from updaterd.release.upkeep import garbage

    workspace = opening.workspace(arguments)
    now = opening.clock()
    days = max(arguments.older_than_days, garbage.LEAST_DAYS)
    with workspace.locked():
        repository = opening.published(workspace)
        paths = garbage.collectable(workspace, repository, now - timedelta(days=days))
        freed = sum(path.stat().st_size for path in paths)
        for path in paths:
            if arguments.dry_run:
                print(path)
            else:
                path.unlink()
    output.answer(
        arguments,
        files=[str(path) for path in paths],
        bytes=freed,
        deleted=not arguments.dry_run,
    )
    word = "could delete" if arguments.dry_run else "deleted"
    print(f"{word} {len(paths)} files, {freed:,} bytes")
    if days > arguments.older_than_days:
        print(
            f"what metadata of the last {days:g} days names was not deleted: machines "
            "may still use metadata of that age"
        )
    return 0
