# SPDX-License-Identifier: Apache-2.0
"""`updaterd why`: decision, cause, and what to do, a line each."""

import argparse
from pathlib import Path
from typing import Any

from updaterd.cli.parts.options import (
    add_machine_options,
    chosen_products,
    directories_from,
    settings_from,
    wall_clock,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("product", help="the product")
    parser.epilog = (
        "The first line says what is done or not done, the second why, the third what\n"
        "you can do. It changes nothing, and asks nobody: `updaterd check` looks anew."
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the three lines."""
    from updaterd import config
    from updaterd.cli.parts.looking import look
    from updaterd.core.text import printable

    settings = settings_from(arguments)
    (name,) = chosen_products(settings, arguments.product)
    document = look(settings, wall_clock())
    product = next(p for p in document["products"] if p["name"] == name)
    start = config.starting(Path(directories_from(arguments).config))
    for line in answer(document, product, start=start):
        print(printable(line))
    return 0


def answer(
    document: dict[str, Any],
    product: dict[str, Any],
    *,
    start: str = "systemctl start updaterd",
) -> tuple[str, str, str]:
    """Return decision, cause and what to do; `start` is what starts the daemon.

    What is wrong with the machine comes before what was decided: while it lasts,
    nothing that was decided is done.
    """
    from updaterd.core import codes

    name, code = product["name"], product["decision"]["code"]
    error = product["last_error"] if product["failures"] else None
    if error:
        decision = f"{_stays(product)}: the last attempt failed"
        if product["next_attempt_at"]:
            decision += f", the next is at {_at(product['next_attempt_at'])}"
        return decision, error["message"], _remedy(error["code"], name)
    at_work = product["deployment"]
    cause = product["decision"]["reason"]
    remedy = _remedy(code, name) if code else f"`updaterd check {name}` looks now"
    if product["hold"]:
        why = product["hold"]["reason"]
        until = product["hold"]["until"]
        end = f"until {_at(until)}" if until else "until `updaterd unhold`"
        cause = f"updates are on hold {end}" + (f": {why}" if why else "")
        decision = f"{_stays(product)}: it is on hold"
        return decision, cause, f"`updaterd unhold {name}` ends the hold"
    if at_work and codes.find(code) and code in _ready():
        latest = f", at the latest at {_at(at)}" if (at := product["deadline"]) else ""
        return f"{name} {at_work['version']} is ready and waits{latest}", cause, remedy
    if at_work:
        from updaterd.cli.parts.page import progress_of

        done = f" ({text})" if (text := progress_of(product)) else ""
        state = at_work["state"].lower().replace("_", " ")
        return (
            f"{name} {at_work['version']} is under way: {state}{done}",
            cause,
            "nothing: it goes on by itself",
        )
    if not document["daemon"]["running"]:
        return (
            f"{_stays(product)}: nobody looks for updates",
            "the daemon is not running"
            + (f"; what it found when it last looked: {cause}" if code else ""),
            f"start it: `{start}`",
        )
    return f"{_stays(product)} ({code or 'not checked yet'})", cause, remedy


def _ready() -> frozenset[str]:
    from updaterd.core.deferral import WAITS

    return WAITS


def _stays(product: dict[str, Any]) -> str:
    installed = product["installed"]
    if installed is None:
        return f"{product['name']} is not installed"
    return f"{product['name']} stays at {installed['version']}"


def _at(moment: str) -> str:
    from updaterd.cli.parts.page import local

    return local(moment)


def _remedy(code: str, product: str) -> str:
    """Return what to do about a code, for a product."""
    from updaterd.core import codes

    remedy = codes.remedy(code) or "do what the line above says"
    return remedy.replace("PRODUCT", product)
