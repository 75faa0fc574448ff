# SPDX-License-Identifier: Apache-2.0
"""`updaterd history`: what was installed, when and why."""

import argparse
import json
from pathlib import Path

from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    settings_from,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", nargs="?", help="only this product")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="how many (default: 20)"
    )
    parser.add_argument(
        "--steps", action="store_true", help="every step of each, with its time"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the last deployments, newest first."""
    from updaterd import status
    from updaterd.cli.parts.page import local, outcome
    from updaterd.core.text import printable
    from updaterd.store.records import Records
    from updaterd.store.schema import open_for_reading

    settings = settings_from(arguments)
    if arguments.product is not None:
        chosen_products(settings, arguments.product)  # a typo is not "nothing yet"
    connection = open_for_reading(Path(settings.directories.state) / "state.db")
    if connection is None:
        print("nothing was installed yet")
        return 0
    journal = Records(connection)
    deployments = journal.history(arguments.product, limit=arguments.limit)
    for deployment in deployments:
        row = status.describe(deployment)
        row["product"] = deployment.product
        steps = [
            {"state": str(t.state), "at": status.iso(t.at) or "", "reason": t.reason}
            for t in journal.transitions(deployment.id)
        ]
        if arguments.json:
            print(json.dumps({**row, "steps": steps}))
            continue
        when = row["ended_at"] or row["updated_at"]
        print(printable(f"{local(when)}  {deployment.product:<10} {outcome(row)}"))
        for step in steps if arguments.steps else ():
            why = f"  {step['reason']}" if step["reason"] else ""
            at = local(step["at"])
            print(printable(f"    {at}  {step['state'].lower():<12}{why}"))
    if not deployments and not arguments.json:
        print("nothing was installed yet")
    connection.close()
    return 0
