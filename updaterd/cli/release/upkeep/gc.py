# SPDX-License-Identifier: Apache-2.0
"""`updaterd release gc`: delete files that nothing refers to."""

import argparse
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from updaterd.cli.release.parts import (
    destinations,
    opening,
    options,
    output,
)

if TYPE_CHECKING:
    from updaterd.release.destinations.contract import Destination
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    gc = options.command(
        commands,
        "gc",
        run,
        "delete files that nothing refers to",
        "What is not of the repository's making (a site's pages) is never touched. A\n"
        "destination must say what this repository says: `sync` first.\n",
    )
    gc.add_argument(
        "--older-than-days",
        type=float,
        default=7.0,
        metavar="DAYS",
        help="delete files to which nothing has referred for so many days, as `gc` "
        "and `refresh` noted it (default, and at least: 7, as long as a machine's "
        "metadata counts)",
    )
    gc.add_argument("--dry-run", action="store_true", help="only list them")
    options.add_destinations(gc)
    options.add_workspace(gc)


def run(arguments: argparse.Namespace) -> int:
    """Delete what nothing refers to, here and at destinations.

    Raises:
        UpdaterError: a destination cannot be asked, or says something else.
    """
    from updaterd.release.upkeep import garbage

    workspace = opening.workspace(arguments)
    now = opening.clock()
    days = max(arguments.older_than_days, garbage.LEAST_DAYS)
    older_than = now - timedelta(days=days)
    with workspace.locked():
        repository = opening.published(workspace)
        dry = arguments.dry_run
        paths = garbage.collectable(workspace, repository, older_than, dry=dry)
        freed = sum(path.stat().st_size for path in paths)
        for path in paths:
            if arguments.dry_run:
                print(path)
            else:
                path.unlink()
        if paths and not dry:  # there may be room for it only now
            with suppress(OSError):
                garbage.note(workspace, repository)
        collected = [
            _collect(arguments, workspace, repository, destination, older_than)
            for destination in destinations.destinations(arguments, workspace)
        ]
    output.answer(
        arguments,
        files=[str(path) for path in paths],
        bytes=freed,
        deleted=not arguments.dry_run,
        destinations=collected,
    )
    _say(arguments, "", len(paths), freed)
    for entry in collected:
        _say(arguments, f"{entry['to']}: ", len(entry["files"]), entry["bytes"])
    if days > arguments.older_than_days:
        print(
            f"what metadata of the last {days:g} days names was not deleted: machines "
            "may still use metadata of that age"
        )
    return 0


def _collect(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    repository: "Repository",
    destination: "Destination",
    older_than: datetime,
) -> dict[str, Any]:
    """Delete at a destination what nothing refers to; the repository is locked.

    Raises:
        BrokenError: it does not say what the repository says: what it refers to is
            not known here.
    """
    from updaterd.errors import BrokenError
    from updaterd.release.upkeep import comparison, garbage

    view = comparison.look(destination, repository)
    if view.held is None or view.held.data != repository.pushed()[0]:
        raise BrokenError(
            f"{destination.address} does not say what this repository says",
            means="nothing was deleted there: it may refer to what this one does not",
            do=f"{destinations.AGAIN}, then the same command again",
            code="destination_behind",
        )
    names = garbage.collectable_at(
        workspace,
        repository,
        destination.address,
        view.stored,
        older_than,
        dry=arguments.dry_run,
    )
    for name in names:
        if arguments.dry_run:
            print(f"{destination.address}/{name}")
        else:
            destination.delete(name)
    return {
        "to": destination.address,
        "files": names,
        "bytes": sum(view.stored[name].size for name in names),
    }


def _say(arguments: argparse.Namespace, where: str, files: int, freed: int) -> None:
    word = "could delete" if arguments.dry_run else "deleted"
    print(f"{where}{word} {files} files, {freed:,} bytes")
