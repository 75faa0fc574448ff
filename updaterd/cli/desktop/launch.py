# SPDX-License-Identifier: Apache-2.0
"""`updaterd launch`: activate what is ready, then become the application."""

import argparse
import json
import os
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updaterd.cli.desktop import add_socket

if TYPE_CHECKING:
    from updaterd.api.client import Client

_LONGEST_S = 60.0
_EVERY_S = 0.2
_UNDER_WAY = frozenset({"ready", "activating", "rolling_back"})


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", help="the product")
    parser.add_argument(
        "words",
        nargs=argparse.PARSER,  # one, and whatever follows it: `--` is among that
        metavar="PROGRAM",
        help="what to start, in the release: bin/acme; what follows is its arguments",
    )
    add_socket(parser)
    parser.add_argument(
        "--wait",
        type=float,
        default=_LONGEST_S,
        metavar="SECONDS",
        help="how long an activation may keep the application (default: 60)",
    )
    parser.epilog = (
        "For the Exec= line of a desktop file: `updaterd-launch acme bin/acme %U`. "
        "Whatever\nupdaterd says, or does not, the application is started."
    )


def run(arguments: argparse.Namespace) -> int:
    """Activate what is ready; become the application.

    Raises:
        BrokenError: there is no such application here.
    """
    from updaterd.errors import BrokenError

    root = activate(arguments.product, arguments.socket, wait_s=arguments.wait)
    program = Path(root or _published(arguments.product)) / "current"
    program /= arguments.words[0]
    try:
        os.execv(program, [str(program), *arguments.words[1:]])  # noqa: S606 - to become it
    except OSError as error:
        raise BrokenError(
            f"cannot start {program}: {error.strerror}",
            do=f"`updaterd status` tells whether {arguments.product} is installed",
            code="not_staged",
        ) from error


def activate(product: str, path: Path | None, *, wait_s: float) -> str:
    """Have what is ready activated; return the product's root, "" where it is not told.

    What an application asks to wait with, or a person postponed, is not asked for.
    """
    from updaterd.api.client import Client, RefusedError, places
    from updaterd.errors import UpdaterError

    for place in [path] if path else filter(Path.exists, places(product)):
        try:
            with closing(Client(place)) as client:
                status = client.call("Status", product=product)["status"]
                return _activate(client, product, status, wait_s)
        except RefusedError as error:
            if error.name != "NoSuchProduct":  # another daemon's, then
                return ""
        except (UpdaterError, KeyError, TypeError):
            return ""
    return ""


def _activate(
    client: "Client", product: str, status: dict[str, Any], wait_s: float
) -> str:
    """Have what is ready activated; return the product's root."""
    from updaterd.errors import UpdaterError

    root = str(status["root"])
    try:
        until = time.monotonic() + wait_s
        if status["state"] == "ready" and status["code"] in _ASKED:
            client.call("Apply", product=product)
            while status["state"] in _UNDER_WAY and time.monotonic() < until:
                time.sleep(_EVERY_S)
                status = client.call("Status", product=product)["status"]
    except (UpdaterError, KeyError, TypeError):
        return root  # it is started as it is
    return root


_ASKED = frozenset({"waits_for_request", "waits_for_exit"})


def _published(product: str) -> str:
    """Return a product's root as the daemon published it.

    Raises:
        BrokenError: it did not.
    """
    from updaterd.cli.parts import looking
    from updaterd.errors import BrokenError
    from updaterd.files import regular

    for runtime in _runtimes(product):
        try:
            raw = regular.read(runtime / "status.json", looking.LONGEST)
            document: Any = json.loads(raw)
            for entry in document["products"]:
                if entry["name"] == product:
                    return str(entry["root"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    raise BrokenError(
        f"no product {product!r:.80} is known here",
        do="`updaterd status` lists the products",
        code="no_such_product",
    )


def _runtimes(product: str) -> list[Path]:
    from updaterd.api.client import places

    return [place.parent for place in places(product)]
