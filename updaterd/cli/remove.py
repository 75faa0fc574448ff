# SPDX-License-Identifier: Apache-2.0
"""`updaterd remove`: take a product off this machine."""

import argparse
import json
from contextlib import closing

from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    load_pipeline,
    nudge_daemon,
    settings_from,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", help="the product to remove")
    parser.add_argument("--json", action="store_true", help="print a JSON line")
    parser.epilog = (
        "Stops its units, deletes its releases and what is known of them, and sets a\n"
        "hold, so that it does not come back: `updaterd unhold PRODUCT` ends that.\n"
        "What else is in its root, and all that is elsewhere, stays, and so does what\n"
        "is mounted there. A removal that is interrupted is finished by the next run\n"
        "of updaterd. Remove its package or kit, if it has one, instead: that does\n"
        "this, too."
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Remove the product and say what stays."""
    load_pipeline()
    from dataclasses import asdict

    from updaterd.cli.parts.opening import Machine
    from updaterd.cli.parts.telling import teller
    from updaterd.core.text import printable
    from updaterd.pipeline import by_hand

    settings = settings_from(arguments)
    (name,) = chosen_products(settings, arguments.product)
    product = settings.products[name]
    with closing(Machine(settings, teller(as_json=arguments.json))) as on:
        removed = by_hand.remove(product, on.services)
        on.report()
    nudge_daemon(settings)
    if arguments.json:
        print(json.dumps({"schema": 1, **asdict(removed)}))
        return 0
    headline = (
        f"{removed.version} removed" if removed.version else "nothing was installed"
    )
    print(printable(f"{name}: {headline}"))
    for note in removed.notes:
        print(f"  note: {printable(note)}")
    if removed.others:
        names = ", ".join(removed.others)
        print(printable(f"  stays in {product.root}, not updaterd's: {names}"))
    print(f"  it stays away until you say `updaterd unhold {name}`")
    return 0
