"""`updaterd hold`: install nothing until further notice, or for a time."""

import argparse
import math
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
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="TIME",
        type=_duration,
        help='how long, such as "36h" or "7d" (default: until `updaterd unhold`)',
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


def run(arguments: argparse.Namespace) -> int:
    """Write the hold into the journal."""
    from updaterd.status import iso
    from updaterd.store.journal import Journal
    from updaterd.store.schema import open_state

    settings = settings_from(arguments)
    until = math.inf
    if arguments.duration is not None:
        until = wall_clock() + arguments.duration
    connection = open_state(Path(settings.directories.state) / "state.db")
    for name in chosen_products(settings, arguments.product):
        Journal(connection).hold(name, until=until, reason=arguments.reason)
        print(f"{name}: on hold until {iso(until) or 'you say `updaterd unhold`'}")
    connection.close()
    nudge_daemon(settings)
    return 0
