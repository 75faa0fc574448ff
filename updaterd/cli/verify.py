# SPDX-License-Identifier: Apache-2.0
"""`updaterd verify`: compare the installed tree with its signed manifest."""

import argparse
import json
from contextlib import closing

from updaterd.cli import EXIT_CURRENT, EXIT_ERROR
from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    settings_from,
)

SCHEMA = 1
_SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product (default: all)")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="repair the tree; only bytes that are not on this disk are downloaded",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON line each")
    parser.epilog = (
        "exit codes:\n"
        "   0  every file is as it was signed, or was repaired\n"
        "   1  something is wrong; stdout says what\n"
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verify the products; return the worst exit code."""
    from updaterd.cli.parts.opening import Machine
    from updaterd.cli.parts.telling import teller
    from updaterd.errors import UpdaterError
    from updaterd.exits import tell
    from updaterd.pipeline import by_hand

    settings = settings_from(arguments)
    worst = EXIT_CURRENT
    with closing(Machine(settings, teller(as_json=arguments.json))) as machine:
        for name in chosen_products(settings, arguments.product):
            try:
                checked = by_hand.verify(
                    settings.products[name], machine.services, repair=arguments.repair
                )
            except UpdaterError as error:
                tell(error)
                worst = EXIT_ERROR
                continue
            _show(checked, as_json=arguments.json)
            if checked.problems and not checked.repaired:
                worst = EXIT_ERROR
    return worst


def _show(checked: object, *, as_json: bool) -> None:
    """Print what was found."""
    from dataclasses import asdict

    from updaterd.core.text import printable
    from updaterd.pipeline.by_hand import Checked

    assert isinstance(checked, Checked)
    if as_json:
        problems = [
            {"path": problem.path, "what": problem.difference}
            for problem in checked.problems
        ]
        document = {"schema": SCHEMA, **asdict(checked), "problems": problems}
        print(json.dumps(document))
        return
    for note in checked.notes:
        print(f"  note: {printable(note)}")
    for problem in checked.problems[:_SHOWN]:
        print(printable(f"  {problem.path} {problem.difference}"))
    if len(checked.problems) > _SHOWN:
        print(f"  ... and {len(checked.problems) - _SHOWN} more")
    name = f"{checked.product} {checked.version}"
    if not checked.problems:
        print(f"{name}: every file is as it was signed")
    elif checked.repaired:
        print(
            f"{name}: repaired {len(checked.problems)} paths, "
            f"{checked.bytes_fetched} bytes downloaded"
        )
    else:
        print(
            f"{name}: {len(checked.problems)} paths are not as they were signed; "
            f"`updaterd verify {checked.product} --repair` puts them right"
        )
