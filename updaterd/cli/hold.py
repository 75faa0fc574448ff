# SPDX-License-Identifier: Apache-2.0
"""`updaterd hold`: install nothing until further notice, or for a time; show holds."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    nudge_daemon,
    settings_from,
    version,
    wall_clock,
)

if TYPE_CHECKING:
    from updaterd.core.settings import Settings

_LONGEST_S = 30 * 365 * 86400
_ENDLESS = "unhold"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product (default: all)")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        type=_duration,
        help='how long, such as "36h" or "7d"',
    )
    ends.add_argument(
        "--until",
        metavar="DATE",
        type=_moment,
        help='when it ends, such as "2027-01-07" or "2027-01-07 06:00", in local time '
        f'unless it names an offset; "{_ENDLESS}": it lasts until `updaterd unhold`',
    )
    parser.add_argument(
        "--at",
        metavar="VERSION",
        type=version,
        help="bring PRODUCT to this release, offered or not, and hold it there",
    )
    parser.add_argument("--reason", help="shown by `updaterd status`")
    parser.epilog = (
        "Without product and options it shows the holds and changes nothing. What is\n"
        "not given stays as it was: a new hold lasts until `updaterd unhold`, one\n"
        "that stands keeps its end and its reason. A hold also stops `update --now`.\n"
        "Roll back works during a hold. With --at the daemon brings that release at\n"
        "once; it need not be offered, and must not be below the floor."
    )
    add_machine_options(parser)


def _duration(text: str) -> float:
    """Return how long, in seconds.

    Raises:
        argparse.ArgumentTypeError: not a duration, none at all, or beyond 30 years.
    """
    from updaterd.core.units import parse_duration
    from updaterd.errors import MalformedError

    try:
        seconds = parse_duration(text)
    except MalformedError as error:
        raise argparse.ArgumentTypeError(f"{error.cause}; {error.do}") from error
    if not 0 < seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not between a second and 30 years; without --for the hold "
            "lasts until `updaterd unhold`"
        )
    return seconds


def _moment(text: str) -> float:
    """Return a date, or a date and time, as Unix seconds; infinity for no end.

    Raises:
        argparse.ArgumentTypeError: not a date.
    """
    from datetime import datetime

    if text == _ENDLESS:
        return math.inf
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a date; write it like 2027-01-07 or 2027-01-07T06:00+01"
        ) from None


def run(arguments: argparse.Namespace) -> int:
    """Write the hold into the journal, or show what is there."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.status import iso
    from updaterd.store.journal import Journal
    from updaterd.store.schema import open_state

    settings = settings_from(arguments)
    if arguments.at is not None and arguments.product is None:
        print("updaterd: --at is about one product: name it", file=sys.stderr)
        return EXIT_USAGE
    values = arguments.product, arguments.duration, arguments.until, arguments.reason
    if all(value is None for value in values):
        return _show(settings)
    now, until = wall_clock(), arguments.until
    if arguments.duration is not None:
        until = now + arguments.duration
    elif until not in (None, math.inf) and not 0 < until - now <= _LONGEST_S:
        fault = f"{iso(until)} is past, or more than 30 years away"
        print(f"updaterd: {fault}; no hold was set", file=sys.stderr)
        return EXIT_USAGE
    names = chosen_products(settings, arguments.product)
    connection = open_state(Path(settings.directories.state) / "state.db")
    journal = Journal(connection)
    for name in names:
        known = journal.product(name)
        stands = known.hold_until is not None and now < known.hold_until
        ends = until if until is not None else known.hold_until if stands else None
        reason = known.hold_reason if stands else ""
        at = arguments.at or (known.hold_at if stands else "")
        if at != known.hold_at and reason == f"update --to {known.hold_at}":
            reason = ""  # it says what another command did, and that is over
        if arguments.reason is not None:
            # what a terminal in another encoding typed is kept as far as it is text
            reason = arguments.reason.encode(errors="replace").decode()
        ends = math.inf if ends is None else ends
        journal.hold(name, until=ends, reason=reason, at=at)
        if arguments.at is not None:
            journal.remember(name, next_attempt_at=now)
        print(_line(name, iso(ends), reason, at))
    connection.close()
    nudge_daemon(settings)
    return 0


def _show(settings: "Settings") -> int:
    """Print the holds there are."""
    from updaterd.cli.parts.looking import look

    for product in look(settings, wall_clock())["products"]:
        hold = product["hold"]
        if hold is None:
            print(f"{product['name']}: no hold")
        else:
            at = hold["at"] or ""
            print(_line(product["name"], hold["until"], hold["reason"], at))
    return 0


def _line(name: str, moment: str | None, reason: str, at: str) -> str:
    from updaterd.cli.parts.page import local
    from updaterd.core.text import printable

    end = local(moment) if moment else "you say `updaterd unhold`"
    why = f" ({reason})" if reason else ""
    place = f" at {at}" if at else ""
    return printable(f"{name}: on hold{place} until {end}{why}")
