# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys add-product`: delegate to a new product."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.keys import change
from updaterd.cli.release.parts import (
    options,
)

if TYPE_CHECKING:
    from updaterd.release.keychange.edits import Change
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    product = change.verb(verbs, "add-product", run, "delegate to a new product")
    product.add_argument("product", metavar="PRODUCT", help="the product")
    product.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME",
        help="channel of the product; may be repeated",
    )
    product.add_argument(
        "--critical", action="store_true", help="releases need two keys' signatures"
    )


def run(arguments: argparse.Namespace) -> int:
    """Delegate to a product."""

    def make(workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import delegation

        channels = arguments.channel or ["stable"]
        return delegation.product_changes(
            workspace, arguments.product, channels, critical=arguments.critical
        )

    return change.publish(
        arguments, make, f"product {arguments.product} is delegated to"
    )
