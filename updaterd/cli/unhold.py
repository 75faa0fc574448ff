# SPDX-License-Identifier: Apache-2.0
"""`updaterd unhold`: end a hold."""

import argparse
from pathlib import Path

from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    nudge_daemon,
    settings_from,
    wall_clock,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product (default: all)")
    parser.epilog = "A running daemon looks for updates at once."
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Take the hold out of the journal and wake the daemon."""
    from updaterd.store.journal import Journal
    from updaterd.store.schema import open_state

    settings = settings_from(arguments)
    connection = open_state(Path(settings.directories.state) / "state.db")
    for name in chosen_products(settings, arguments.product):
        Journal(connection).unhold(name)
        Journal(connection).remember(name, next_attempt_at=wall_clock())
        print(f"{name}: no hold")
    connection.close()
    nudge_daemon(settings)
    return 0
