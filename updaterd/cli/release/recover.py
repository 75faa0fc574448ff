# SPDX-License-Identifier: Apache-2.0
"""`updaterd release recover`: go on from a backup, past what is out."""

import argparse
import sys
from typing import TYPE_CHECKING

from updaterd.cli.release import common

if TYPE_CHECKING:
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.upkeep.outside import Out, Served
    from updaterd.release.upkeep.recovery import Recovered

MORE = """\
For a public/ that was restored from a backup, or lags behind what machines have seen.
Versions, places in the order (seq) and labels jump past all that is out. Channels go
on with what the backup says: it is said before it is done. If any copy of what is out
is left (a mirror, the CDN), bring that here instead: nothing is lost then.
"""


def configure(commands: common.Subcommands) -> None:
    """Declare the arguments."""
    parser = common.add(
        commands, "recover", run, "go on from a backup, past all that is out", MORE
    )
    parser.add_argument(
        "--ahead",
        type=common.number(1, 10**9),
        default=1000,
        metavar="N",
        help="left out for what nobody can see any more (default: 1000)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say it")
    common.add_feed(parser)
    common.add_workspace(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it.

    Raises:
        TransientError: what is out cannot be asked, where an address was given.
        RejectedError: what is out is another repository.
    """
    from updaterd.cli.release.channel import show
    from updaterd.net import Fetcher
    from updaterd.release import publish
    from updaterd.release.repository import catalog
    from updaterd.release.upkeep import recovery
    from updaterd.release.upkeep.outside import Served

    workspace = common.open_workspace(arguments)
    common.check_feed(arguments, workspace)
    with workspace.locked(), Fetcher(ca_file=arguments.ca_file) as fetcher:
        repository = common.opened(workspace)
        found = common.served_at(arguments, workspace)
        served = (
            Served(fetcher, found[0]) if found and not arguments.no_compare else None
        )
        out = _look(served, repository, named=bool(found and found[1]))
        if out is not None and out.roots and not arguments.dry_run:
            recovery.take_roots(workspace, out)
            repository = common.opened(workspace)
        ahead = arguments.ahead
        made = recovery.jump(workspace, repository, served, out, ahead=ahead)
        _say(arguments, made, served.address if served and out else "")
        for product in catalog.products(repository):
            each = publish.catalog_of(workspace, repository, product)
            for channel in each.channels():
                show(each.pointer(channel))
        print("machines that have something later step back to that")
        sys.stdout.flush()
        if arguments.dry_run:
            return 0
        repository.commit()
    print("recovered")
    again = "`updaterd release refresh`"
    common.tell_feed(arguments, workspace, repository, None, again=again)
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


def _say(arguments: argparse.Namespace, made: "Recovered", address: str) -> None:
    print(
        f"past what {address} serves:"
        if address
        else "what is out cannot be seen: past all that can be by this machine's clock"
    )
    for role, version in made.roles.items():
        print(f"  {role}: version above {version}")
    for product, seq in made.seqs.items():
        print(f"  {product}: seq above {seq}")
    for product, label in made.lost:
        print(
            f"  {product} {label} is out and not here: its label stays taken; the "
            "same contents can be pushed again"
        )
    for note in made.notes:
        print(f"note: {note}")
    common.answer(
        arguments,
        address=address or None,
        roles=made.roles,
        seqs=made.seqs,
        lost=[{"product": name, "version": label} for name, label in made.lost],
        notes=made.notes,
    )
