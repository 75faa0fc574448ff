# SPDX-License-Identifier: Apache-2.0
"""`updaterd release recover`: go on from a backup, past what is out."""

import argparse
import sys
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    delivery,
    destinations,
    feed,
    opening,
    options,
    output,
)

if TYPE_CHECKING:
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.upkeep.outside import Out, Served
    from updaterd.release.upkeep.recovery import Recovered

MORE = """\
For a public/ that was restored from a backup, or lags behind what machines have seen.
Versions of roles, seqs and version labels jump past all that was published. Channels
offer what they offer in the backup; the command prints that before it does anything.
If a copy of what was published is left (a mirror, the CDN), copy that to public/
instead: then nothing is lost.
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    parser = options.command(
        commands,
        "recover",
        run,
        "go on from a backup, past all that was published",
        MORE,
    )
    parser.add_argument(
        "--ahead",
        type=options.number(1, 10**9),
        default=1000,
        metavar="N",
        help="versions and seqs to skip: more may have been published than can be seen "
        "now (default: 1000)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say it")
    options.add_feed(parser)
    options.add_workspace(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it.

    Raises:
        TransientError: what is out cannot be asked, where an address was given.
        RejectedError: what is out is another repository.
    """
    from updaterd.net import Fetcher
    from updaterd.release import publish
    from updaterd.release.repository.catalog import products
    from updaterd.release.upkeep import comparison, recovery
    from updaterd.release.upkeep.outside import Served

    workspace = opening.workspace(arguments)
    feed.check(arguments, workspace)
    with workspace.locked(), Fetcher(ca_file=arguments.ca_file) as fetcher:
        repository = opening.published(workspace)
        location = opening.served_at(arguments, workspace)
        goes_to = destinations.destinations(arguments, workspace)
        named = bool(location and location[1]) or bool(goes_to)
        served = None
        if not arguments.no_compare:
            served = (
                comparison.served_from(goes_to[0])
                if goes_to
                else Served(fetcher, location[0])
                if location
                else None
            )
        out = _look(served, repository, named=named)
        if out is not None and out.roots and not arguments.dry_run:
            recovery.take_roots(workspace, out)
            repository = opening.published(workspace)
        ahead = arguments.ahead
        recovered = recovery.jump(workspace, repository, served, out, ahead=ahead)
        _say(arguments, recovered, served.address if served and out else "")
        for product in products(repository):
            catalog = publish.catalog_of(workspace, repository, product)
            for channel in catalog.channels():
                output.show_channel(catalog.pointer(channel))
        print("machines that have a later release step back to these offers")
        sys.stdout.flush()
        if arguments.dry_run:
            return 0
        repository.commit()
    print("recovered")
    delivery.deliver(arguments, workspace, recovered=True)
    again = "`updaterd release refresh`"
    feed.announce(arguments, workspace, repository, None, again=again)
    return 0


def _look(
    served: "Served | None", repository: "Repository", *, named: bool
) -> "Out | None":
    """Return what is out; None where nobody can tell.

    Raises:
        TransientError: it cannot be asked, and the address was given.
        RejectedError: or it is another repository.
    """
    from updaterd.errors import RejectedError, TransientError

    try:
        return served.look(repository) if served is not None else None
    except (TransientError, RejectedError):
        if named:
            raise
        return None


def _say(arguments: argparse.Namespace, recovered: "Recovered", address: str) -> None:
    print(
        f"past what {address} serves:"
        if address
        else "the published copy cannot be read: versions and seqs follow this "
        "machine's clock"
    )
    for role, version in recovered.roles.items():
        print(f"  {role}: version above {version}")
    for product, seq in recovered.seqs.items():
        print(f"  {product}: seq above {seq}")
    for product, label in recovered.lost:
        print(
            f"  {product} {label} was published and is missing here: its version "
            "stays reserved; push the same contents again to have it back"
        )
    for note in recovered.notes:
        print(f"note: {note}")
    output.answer(
        arguments,
        address=address or None,
        roles=recovered.roles,
        seqs=recovered.seqs,
        lost=[{"product": name, "version": label} for name, label in recovered.lost],
        notes=recovered.notes,
    )
