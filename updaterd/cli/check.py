# SPDX-License-Identifier: Apache-2.0
"""`updaterd check`: look for updates now, without installing them."""

import argparse

from updaterd.cli import EXIT_CODES
from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    load_pipeline,
    nudge_daemon,
    settings_from,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product (default: all)")
    parser.add_argument("--json", action="store_true", help="print a JSON line each")
    parser.epilog = (
        "Refreshes the signed metadata, decides, and says what `update` would do; the\n"
        "same as `update --explain`. A running daemon is woken: it connects to its\n"
        "feed at once, even if the feed had told it to go away.\n\n" + EXIT_CODES
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Decide for each product and print it; return the worst exit code."""
    load_pipeline()
    from updaterd.cli.update import bring
    from updaterd.pipeline.run import Request

    settings = settings_from(arguments)
    nudge_daemon(settings)
    return bring(
        settings,
        chosen_products(settings, arguments.product),
        Request(dry=True),
        as_json=arguments.json,
    )
