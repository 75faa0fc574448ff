# SPDX-License-Identifier: Apache-2.0
"""`updaterd status`: how things stand, for a person or a script."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from updaterd.cli import EXIT_CODES
from updaterd.cli.parts.options import (
    add_machine_options,
    directories_from,
    settings_from,
    wall_clock,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument(
        "--json", action="store_true", help="a stable, versioned document for scripts"
    )
    shape.add_argument(
        "--watch", action="store_true", help="show it again every second until Ctrl-C"
    )
    shape.add_argument(
        "--notes",
        nargs="?",
        const="",
        metavar="PRODUCT",
        help="show what is new in the installed release, and in one that is ready, in "
        "your language",
    )
    parser.epilog = (
        "Works with the daemon running or not, and for users who may not read its\n"
        "database: then it shows what the daemon last published.\n\n" + EXIT_CODES
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print how things stand; return the exit code that says the same."""
    from updaterd.cli.parts.page import render

    while True:
        document = _document(arguments)
        if arguments.notes is not None:
            print(release_notes(document, arguments.notes))
            return 0
        code: int = document["exit_code"]
        if arguments.json:
            from updaterd import status

            sys.stdout.write(status.encode(document).decode())
            return code
        page = render(document, wall_clock(), start=_start(arguments))
        if not arguments.watch:
            print(page)
            return code
        print(f"\x1b[2J\x1b[H{page}", flush=True)
        time.sleep(1)


def release_notes(document: dict[str, Any], name: str) -> str:
    """Return the notes of what is here, for a person.

    Args:
        document: how things stand.
        name: of a product; empty: of all.

    Raises:
        BrokenError: there is no such product.
    """
    from updaterd.errors import BrokenError

    products = [
        product for product in document["products"] if name in {"", product["name"]}
    ]
    if not products and name:
        known = ", ".join(product["name"] for product in document["products"]) or "none"
        raise BrokenError(
            f"no product {name!r:.80} is configured here",
            do=f"configured products: {known}",
            code="no_such_product",
        )
    return "\n\n".join(text for product in products for text in _notes_of(product))


def _notes_of(product: dict[str, Any]) -> list[str]:
    """Return the notes of the releases on disk that matter, the newest first."""
    from updaterd.core import manifest as manifests
    from updaterd.core import release_notes as notes
    from updaterd.core.text import printable
    from updaterd.errors import MalformedError
    from updaterd.install.layout import saved_manifests

    states = {}
    if product["deployment"]:
        states[product["deployment"]["version"]] = "ready"
    if product["installed"]:
        states[product["installed"]["version"]] = "installed"
    texts = []
    saved = saved_manifests(Path(product["root"]), states)
    for version, state in states.items():
        head = printable(f"{product['name']} {version} ({state})")
        try:
            raw = saved.get(version)
            chosen = notes.choose(
                manifests.parse(raw).notes if raw else (),
                notes.preferred(os.environ),
            )
        except MalformedError:
            chosen = None
        if chosen is not None:
            texts.append(f"{head}\n\n{notes.plain(chosen[1])}")
        elif version not in saved:
            texts.append(f"{head}: its notes cannot be read by this user")
        elif state == "installed":
            texts.append(f"{head}: it came without release notes")
    return texts or [f"{product['name']}: nothing is installed"]


def _document(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how things stand, also when the configuration cannot be read.

    Raises:
        ConfigError: it cannot, and no daemon has left word here.
    """
    from updaterd import config, status
    from updaterd.cli.parts.looking import look, published_in
    from updaterd.system import presence

    try:
        settings = settings_from(arguments)
    except config.ConfigError as error:
        runtime = Path(directories_from(arguments).runtime)
        published = published_in(runtime)
        if published is None:
            raise
        running = presence.is_running(runtime, published)
        document = published if running else status.left_behind(published)
        refused = status.refusal(error.code, str(error), at=wall_clock())
        return status.misread(document, refused)
    return look(settings, wall_clock())


def _start(arguments: argparse.Namespace) -> str:
    """Return the command that starts the daemon which was asked about."""
    from updaterd import config

    return config.starting(Path(directories_from(arguments).config))
