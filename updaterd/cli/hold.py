"""`updaterd hold`: install nothing until further notice, or for a time."""

import argparse
import math
import sys
from pathlib import Path

from updaterd.cli.common import (
    add_machine_options,
    chosen_products,
    nudge_daemon,
    settings_from,
    wall_clock,
)

_LONGEST_S = 30 * 365 * 86400


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product (default: all)")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        type=_duration,
        help='how long, such as "36h" or "7d" (default: until `updaterd unhold`)',
    )
    ends.add_argument(
        "--until",
        metavar="DATE",
        type=_moment,
        help='when it ends, such as "2027-01-07" or "2027-01-07 06:00", in local time '
        "unless it names an offset",
    )
    parser.add_argument("--reason", default="", help="shown by `updaterd status`")
    parser.epilog = "A hold also stops `update --now`. Roll back works during a hold."
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
        raise argparse.ArgumentTypeError(f"{error.what}; {error.do}") from error
    if not 0 < seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not between a second and 30 years; without --for the hold "
            "lasts until `updaterd unhold`"
        )
    return seconds


def _moment(text: str) -> float:
    """Return a date, or a date and time, as Unix seconds.

    Raises:
        argparse.ArgumentTypeError: not a date.
    """
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a date; write it like 2027-01-07 or 2027-01-07T06:00+01"
        ) from None


def run(arguments: argparse.Namespace) -> int:
    """Write the hold into the journal."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.cli.status import local
    from updaterd.status import iso
    from updaterd.store.journal import Journal
    from updaterd.store.schema import open_state

    settings = settings_from(arguments)
    until = math.inf
    if arguments.duration is not None:
        until = wall_clock() + arguments.duration
    elif arguments.until is not None:
        until = arguments.until
        if not 0 < until - wall_clock() <= _LONGEST_S:
            said = f"{iso(until)} is past, or more than 30 years away"
            print(f"updaterd: {said}; no hold was set", file=sys.stderr)
            return EXIT_USAGE
    connection = open_state(Path(settings.directories.state) / "state.db")
    # what a terminal in another encoding typed is kept as far as it is text
    reason = arguments.reason.encode(errors="replace").decode()
    for name in chosen_products(settings, arguments.product):
        Journal(connection).hold(name, until=until, reason=reason)
        moment = iso(until)
        end = local(moment) if moment else "you say `updaterd unhold`"
        print(f"{name}: on hold until {end}")
    connection.close()
    nudge_daemon(settings)
    return 0
