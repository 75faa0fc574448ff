"""`updaterd check`: look for updates now, without installing them."""

import argparse

from updaterd.cli import EXIT_CODES
from updaterd.cli.common import add_machine_options, nudge_daemon, settings_from


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product (default: all)")
    parser.epilog = (
        "Refreshes the signed metadata, decides, and says what `update` would do.\n"
        "A running daemon is woken: it looks again too, also at a feed that had told\n"
        "it to go away.\n\n" + EXIT_CODES
    )
    add_machine_options(parser)
