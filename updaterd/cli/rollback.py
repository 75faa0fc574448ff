# SPDX-License-Identifier: Apache-2.0
"""`updaterd rollback`: return to the previous release, offline."""

import argparse
from contextlib import closing

from updaterd.cli import EXIT_CODES
from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    nudge_daemon,
    settings_from,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", help="the product to roll back")
    parser.add_argument(
        "--to",
        metavar="VERSION",
        help="return to this release, which must be on disk and have run here, also "
        "one that is blocked (default: the one that ran before, or an older one)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON line")
    parser.epilog = (
        "Moves `current` back, restarts the units and checks that all is well; needs\n"
        "no network. The release that is left is blocked on this machine until a\n"
        "newer one is published (`updaterd update --retry` brings it back).\n"
        "A roll back that is interrupted is finished by the next run of updaterd.\n\n"
        + EXIT_CODES
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Roll the product back and say how it went."""
    from updaterd.cli.parts.opening import Machine
    from updaterd.cli.parts.outcome import EXIT_OF, show
    from updaterd.cli.parts.telling import teller
    from updaterd.core.text import printable
    from updaterd.pipeline import by_hand

    settings = settings_from(arguments)
    (name,) = chosen_products(settings, arguments.product)
    with closing(Machine(settings, teller(as_json=arguments.json))) as machine:
        outcome = by_hand.roll_back(
            settings.products[name], machine.services, to=arguments.to
        )
        machine.report()
    nudge_daemon(settings)
    code = EXIT_OF[outcome.result]
    if outcome.result == "installed" and not arguments.json:
        for note in outcome.notes:
            print(f"  note: {printable(note)}")
        print(
            printable(f"{name}: back from {outcome.from_version} to {outcome.version}")
        )
        return code
    show(outcome, code, as_json=arguments.json)
    return code
