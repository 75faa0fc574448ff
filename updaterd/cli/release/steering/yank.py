# SPDX-License-Identifier: Apache-2.0
"""`updaterd release yank`: withdraw a release."""

import argparse
import sys
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    acts,
    delivery,
    feed,
    opening,
    options,
    output,
)
from updaterd.cli.release.parts import steering as steer

if TYPE_CHECKING:
    from updaterd.release.channels.steering import Steered


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    yank = options.command(
        commands,
        "yank",
        run,
        "withdraw a release from all channels and from the releases role",
        "Says first what each channel offers then: the newest that it offered to all "
        "before.\nMachines that have the withdrawn release step back to that.\n",
    )
    options.add_release(yank, channel=False)
    yank.add_argument(
        "--to",
        dest="instead",
        metavar="LABEL",
        help="release that channels which offered it offer to everybody instead "
        "(default: the newest that each offered to everybody before)",
    )
    yank.add_argument("--dry-run", action="store_true", help="only say it")
    steer.add_options(yank, to=False)  # its --to is a release


def run(arguments: argparse.Namespace) -> int:
    """Withdraw a release.

    Raises:
        UpdaterError: not everybody could be told; it is withdrawn all the same.
    """
    from updaterd.errors import UpdaterError
    from updaterd.release import publish
    from updaterd.release.channels import manifests, withdrawal
    from updaterd.release.repository.draft import Draft

    workspace = opening.workspace(arguments)
    feed.check(arguments, workspace)
    with workspace.locked():
        repository = opening.current(arguments, workspace)
        catalog = (
            Draft(repository, workspace.public, arguments.product)
            if arguments.dry_run
            else publish.catalog_of(workspace, repository, arguments.product)
        )
        changed = withdrawal.yank(catalog, arguments.version, arguments.instead)
        _foretell(arguments, changed)
        if arguments.dry_run:
            return 0
        for steered in changed:
            catalog.point(manifests.carried(workspace, catalog, steered.pointer))
        acts.enter(arguments, workspace, repository, changed, arguments.version)
        repository.commit()
    print(f"yanked {arguments.product} {arguments.version}")
    delivery.deliver(arguments, workspace)
    again = "`updaterd release refresh`"
    untold: list[tuple[str, UpdaterError]] = []
    for steered in changed:
        pointer = steered.pointer
        try:
            feed.announce(arguments, workspace, repository, pointer, again=again)
        except UpdaterError as error:  # a token may be for some channels only
            untold.append((pointer.channel, error))
    if untold:
        first = untold[0][1]
        if len(changed) > 1:
            first.details = tuple(f"{name}: {error.cause}" for name, error in untold)
        raise first
    return 0


def _foretell(arguments: argparse.Namespace, changed: "list[Steered]") -> None:
    """Say, before it is done, what every channel will offer then."""
    print(f"without {arguments.product} {arguments.version}:")
    for steered in changed:
        output.show_channel(steered.pointer)
    if not changed:
        print("no channel offers it: none changes")
    output.show_notes(arguments, *changed)
    sys.stdout.flush()
