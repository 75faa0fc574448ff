# SPDX-License-Identifier: Apache-2.0
"""`updaterd update`: bring products to their target release."""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli import (
    EXIT_CODES,
    EXIT_CURRENT,
    EXIT_DEGRADED,
    EXIT_ERROR,
    EXIT_PENDING,
    EXIT_ROLLED_BACK,
    EXIT_USAGE,
)
from updaterd.cli.parts.opening import Machine
from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    load_pipeline,
    nudge_daemon,
    settings_from,
    version,
)
from updaterd.cli.parts.outcome import EXIT_OF, print_line, show
from updaterd.cli.parts.telling import teller
from updaterd.core import layout
from updaterd.exits import tell

if TYPE_CHECKING:
    from updaterd.core.settings import Settings
    from updaterd.pipeline.run import Outcome, Request
    from updaterd.trust.client import Pushed

_WORST = (EXIT_ERROR, EXIT_ROLLED_BACK, EXIT_DEGRADED, EXIT_PENDING, EXIT_CURRENT)
_BUSY_CODE = "busy"
_CHANGES = frozenset({"installed", "rolled_back"})


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product (default: all)")
    parser.add_argument(
        "--now",
        action="store_true",
        help="do not wait for the maintenance window or this machine's turn in a "
        "rollout; a hold still counts",
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="try a release again although it failed on this machine, or install an "
        "application again although it was deleted",
    )
    parser.add_argument(
        "--to",
        type=version,
        metavar="VERSION",
        help="bring PRODUCT to this release, offered or not, as long as its publisher "
        "signs it and it is not below the floor. Where the channel offers a newer one, "
        "PRODUCT is held at it until `updaterd unhold`",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="only say what would be done and why",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON line each")
    parser.add_argument(
        "--trigger",
        choices=("manual", "event", "poll", "boot"),
        default="manual",
        help="what the journal says started this (default: manual)",
    )
    parser.add_argument(
        "--pushed",
        type=Path,
        metavar="DIR",
        help="signed metadata that came with an event: timestamp.json, snapshot.json",
    )
    parser.add_argument(
        "--from",
        dest="carried",
        type=Path,
        metavar="DIR",
        help="make the first install from a copy of the repository's files, such as a "
        "kit brings along, without a network: signed as ever, and as new as it was "
        "then. What is installed already is left to the repository itself",
    )
    parser.epilog = EXIT_CODES
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Update the products, one after the other; return the worst exit code."""
    if arguments.to and arguments.product is None:
        print("updaterd: --to is about one product: name it", file=sys.stderr)
        return EXIT_USAGE
    load_pipeline()
    from updaterd.pipeline.run import Request

    settings = settings_from(arguments)
    request = Request(
        trigger=arguments.trigger,
        forced=arguments.now,
        retry_blocked=arguments.retry,
        to=arguments.to or "",
        dry=arguments.explain,
        pushed=_pushed(arguments.pushed),
        as_of=_signed_at(arguments.carried) if arguments.carried else None,
    )
    names = chosen_products(settings, arguments.product)
    return bring(
        settings, names, request, as_json=arguments.json, carried=arguments.carried
    )


def bring(
    settings: "Settings",
    names: list[str],
    request: "Request",
    *,
    as_json: bool,
    carried: Path | None = None,
) -> int:
    """Bring each product to its target; return the worst exit code."""
    from updaterd.errors import UpdaterError
    from updaterd.pipeline import update

    worst, changed = EXIT_CURRENT, False
    if not names and not as_json:
        print(f"no product is configured in {settings.directories.config}")
    on = Machine(settings, teller(as_json=as_json), carried=carried)
    with closing(on) as machine:
        for name in _due(machine, names, carried, as_json=as_json):
            try:
                with machine.telling(name) as services:
                    outcome = update.update(settings.products[name], services, request)
            except UpdaterError as error:
                code = EXIT_PENDING if error.code == _BUSY_CODE else EXIT_ERROR
                if as_json:
                    print_line({"product": name, "result": "error", "code": error.code,
                            "reason": str(error), "exit": code})  # fmt: skip
                if request.trigger == "manual":
                    tell(error)  # else the daemon, which knows whether it is new
            else:
                code = _show_outcome(machine, outcome, request, as_json=as_json)
                changed |= outcome.result in _CHANGES
                if outcome.result == "current" and settings.reports.sign_of_life:
                    channel = settings.products[name].channel
                    services = machine.services
                    services.journal.say_alive(name, channel, services.note())
            worst = min(worst, code, key=_WORST.index)
        machine.report()
    if changed and request.trigger == "manual":
        nudge_daemon(settings)  # it may be of an older release, by its own disk
    return worst


def _due(
    machine: Machine, names: list[str], carried: Path | None, *, as_json: bool
) -> list[str]:
    """Return the products that are to be brought: a first install, of what came."""
    if carried is None:
        return names
    journal = machine.services.journal
    missing = [name for name in names if journal.installed(name) is None]
    for name in names:
        if name not in missing and not as_json:
            print(f"{name} is installed; what was carried here is not needed")
    return missing


def _show_outcome(
    machine: Machine, outcome: "Outcome", request: "Request", *, as_json: bool
) -> int:
    """Say how it ended; return the exit code."""
    from updaterd.errors import BrokenError

    code = EXIT_OF[outcome.result]
    if outcome.result == "blocked":
        code = _exit_of_block(machine, outcome.product)
    if outcome.result == "refused" and request.to:
        code = EXIT_ERROR  # of an order: the machine is as well as it was
        tell(
            BrokenError(
                f"{outcome.product}: {outcome.reason}",
                means="nothing was changed",
                do="name another release: `updaterd history "
                f"{outcome.product}` has those that ran here",
                code=outcome.code,
            )
        )
        if not as_json:
            return code
    show(outcome, code, as_json=as_json, dry=request.dry)
    return code


def _exit_of_block(machine: Machine, product: str) -> int:
    """Return the exit code that `status` ends with for the same."""
    from updaterd import status

    last = machine.services.journal.history(product, limit=2)
    ended = [deployment.state for deployment in last if deployment.ended_at is not None]
    return status.EXIT_CODES[status.of_block(ended[0] if ended else None)]


class _Files:
    """Pushed metadata in a directory; absent files are absent metadata."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            with (self._folder / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError:
            return None
        return data if len(data) <= limit else None

    @property
    def timestamp(self) -> bytes | None:
        return self._read(layout.TIMESTAMP, 4 * 1024)

    @property
    def snapshot(self) -> bytes | None:
        return self._read(layout.SNAPSHOT, 256 * 1024)


def _signed_at(folder: Path) -> float | None:
    """Return when a carried repository was signed; None: it does not say.

    Its signatures expire within days, and a kit lies about for longer. What it says of
    the time is signed, too: whoever changed it would need the keys.

    Raises:
        BrokenError: it is not one.
    """
    from tuf.api.metadata import Metadata, Timestamp

    from updaterd.errors import BrokenError
    from updaterd.trust.clock import signed_at

    path = folder / layout.METADATA / layout.TIMESTAMP
    try:
        return (
            signed_at(Metadata[Timestamp].from_bytes(path.read_bytes()).signed) or None
        )
    except Exception as error:
        raise BrokenError(
            f"{folder} holds no files of a repository: {error}",
            means="nothing was installed",
            do="name the folder that has `metadata/`; or leave --from out",
            code="not_a_copy",
        ) from error


def _pushed(folder: Path | None) -> "Pushed | None":
    return None if folder is None else _Files(folder)
