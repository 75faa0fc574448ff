# SPDX-License-Identifier: Apache-2.0
"""Which destinations a command goes to, and whether it may."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from updaterd.release.destinations.contract import Destination
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace

AGAIN = "`updaterd release sync`"


def destinations(
    arguments: argparse.Namespace, workspace: "Workspace"
) -> "list[Destination]":
    """Return where it goes; nothing is asked of them yet.

    Raises:
        BrokenError: an address is of no use, or a library is missing.
    """
    if getattr(arguments, "no_upload", False):
        return []
    named: Sequence[str] = getattr(arguments, "destinations", None) or ()
    base = Path() if named else workspace.folder
    from updaterd.errors import BrokenError
    from updaterd.release.destinations.registry import open_destination

    chosen: dict[str, Destination] = {}
    for address in named or workspace.settings.to:
        destination = open_destination(
            address, base=base, patience_s=workspace.settings.patience_s
        )
        if Path(destination.address).resolve() == workspace.public.resolve():
            raise BrokenError(
                f"{destination.address} is the repository itself",
                do="leave it away: what is published is there already",
                code="bad_destination",
            )
        chosen[destination.address] = destination
    return list(chosen.values())


def compare(
    arguments: argparse.Namespace, workspace: "Workspace", repository: "Repository"
) -> None:
    """Make sure, before anything is published, that it could go there.

    One of several that does not answer holds nothing up: it is brought along later.

    Raises:
        TransientError: none can be asked.
        BrokenError: one holds what does not lead here.
    """
    if arguments.no_compare:
        return
    from updaterd.errors import TransientError
    from updaterd.release.upkeep import comparison

    silent: list[TransientError] = []
    every = destinations(arguments, workspace)
    for destination in every:
        try:
            view = comparison.look(destination, repository)
        except TransientError as error:
            silent.append(error)
            continue
        comparison.compare(workspace, repository, destination, view)
    if silent and len(silent) == len(every):
        first = silent[0]
        first.means = "nothing was published"
        first.do = (
            "see to it; or --no-upload publishes here alone, and later "
            f"{AGAIN} finishes it"
        )
        raise first
    for fault in silent:
        print(f"note: {fault.cause}; the others go on", file=sys.stderr)
