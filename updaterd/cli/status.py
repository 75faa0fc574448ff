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
    SLOW_LOOPS,
    add_machine_options,
    directories_from,
    has_compiled_loops,
    settings_from,
    wall_clock,
)

_LONGEST = 16 * 2**20  # of status.json


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
    from updaterd.system import presence

    try:
        settings = settings_from(arguments)
    except config.ConfigError as error:
        runtime = Path(directories_from(arguments).runtime)
        published = _published(runtime / "status.json")
        if published is None:
            raise
        running = presence.is_running(runtime, published)
        document = published if running else status.left_behind(published)
        refused = status.refusal(error.code, str(error), at=wall_clock())
        return status.misread(document, refused)
    return look(settings, wall_clock())


def look(settings: Any, now: float) -> dict[str, Any]:
    """Return the document: from the database, or as the daemon last published it.

    Raises:
        StateError: the database is unusable, and nothing was published.
        sqlite3.Error: the same.
        OSError: the database may not be read, and nothing was published.
    """
    import sqlite3
    from contextlib import closing

    from updaterd import status
    from updaterd.store.schema import StateError, open_for_reading
    from updaterd.system import presence

    runtime = Path(settings.directories.runtime)
    published = _published(runtime / "status.json")
    running = presence.is_running(runtime, published)
    daemon = None
    if running and published:
        daemon = {
            "pid": published["daemon"].get("pid"),
            "since": published["daemon"].get("since"),
            "ticks": published["daemon"].get("ticks"),
            "feed": published["feed"].get("connection"),
            "refused": (published.get("configuration") or {}).get("refused"),
            "cage": published.get("cage"),
        }
    elif running:
        daemon = dict.fromkeys(("pid", "since", "ticks", "feed", "refused", "cage"))
    try:
        connection = open_for_reading(Path(settings.directories.state) / "state.db")
        if connection is None:
            return status.collect(None, settings, daemon=daemon, now=now)
        with closing(connection):
            return status.collect(connection, settings, daemon=daemon, now=now)
    except (StateError, OSError, sqlite3.Error) as error:
        if published is None:
            raise
        document = published if running else status.left_behind(published)
        if not os.access(settings.directories.state, os.R_OK | os.X_OK):
            return document  # as it is for everybody but the daemon's user
        why = error.cause if isinstance(error, StateError) else str(error)
        return status.unreadable(document, f"this is old: {why}")


def _published(path: Path) -> dict[str, Any] | None:
    """Return what a daemon published, if it is of a layout that is known here."""
    import json

    from updaterd.status import SCHEMA

    try:
        # whatever stands there by that name, no command may wait for it
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(file, "rb") as opened:
            document = json.loads(opened.read(_LONGEST))
    except (OSError, ValueError):
        return None
    whole = isinstance(document, dict) and all(
        isinstance(document.get(part), dict) for part in ("daemon", "feed", "trust")
    )
    return document if whole and document.get("schema") == SCHEMA else None


def _start(arguments: argparse.Namespace) -> str:
    """Return the command that starts the daemon which was asked about."""
    from updaterd import config

    return config.starting(Path(directories_from(arguments).config))


def render(
    document: dict[str, Any], now: float, *, start: str = "systemctl start updaterd"
) -> str:
    """Return the document as a page for a person."""
    from updaterd import status
    from updaterd.core.text import printable

    lines = [f"updaterd {document['updaterd']}: {status.headline(document)}", ""]
    if _is_old(document["generated_at"], now):
        age = _ago(document["generated_at"], now)
        lines.append(f"  as of     {age}, when the daemon last published this")
    lines.append(f"  feed      {_feed(document, now, start)}")
    lines.append(f"            {document['feed']['url']}")
    waiting, bad = document["feed"].get("pending"), document["feed"].get("quarantined")
    if waiting or bad:
        lines.append(
            f"            events: {waiting or 0} waiting, {bad or 0} malformed"
        )
    lines.append(f"  trust     {_trust(document)}")
    if reports := _reports(document, now):
        lines.append(f"  reports   {reports}")
    cage = document.get("cage")
    if cage:
        lines.append(f"  cage      {cage['layers']}")
        lines += [f"            warning: {warning}" for warning in cage["missing"]]
    if not has_compiled_loops():
        lines.append(f"  deltas    warning: {SLOW_LOOPS}")
    for product in document["products"]:
        lines += ["", *_product(product, now)]
    if document.get("notice"):
        lines += ["", f"  notice    {document['notice']}"]
    if document["problems"]:
        lines += ["", "what is wrong:", *(f"  - {p}" for p in document["problems"])]
    return "\n".join(printable(line) for line in lines)


def _is_old(moment: str, now: float) -> bool:
    """Tell whether a page shows the past: one that was published, not made now."""
    from datetime import datetime

    return now - datetime.fromisoformat(moment).timestamp() >= 2.0


def _ago(moment: str | None, now: float) -> str:
    from datetime import datetime

    from updaterd.core.units import format_duration

    if moment is None:
        return "never"
    seconds = now - datetime.fromisoformat(moment).timestamp()
    if seconds < 0:
        return f"in {format_duration(seconds)}"
    return f"{format_duration(seconds)} ago" if seconds >= 1 else "just now"


def local(moment: str) -> str:
    """Return an ISO 8601 moment as this machine's clocks show it, with the zone.

    `--json` stays UTC: a person compares with a watch, a script with other machines.
    """
    from datetime import datetime

    try:
        return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    except (ValueError, OverflowError, OSError):
        return moment  # no such moment in any calendar: as it is


def _feed(document: dict[str, Any], now: float, start: str) -> str:
    if not document["daemon"]["running"]:
        return f"the daemon is not running; start it with `{start}`"
    connection = document["feed"]["connection"]
    cursor = document["feed"].get("cursor")
    last = f", last event {cursor}" if cursor else ""
    if connection is None:
        return f"starting{last}"
    if connection["phase"] == "open":
        return f"connected since {_ago(connection['since'], now)}{last}"
    again = connection.get("retry_at")
    when = f", next attempt {_ago(again, now)}" if again else ""
    why = connection["error"] or connection["code"]
    return f"{connection['phase']}{': ' + why if why else ''}{when}{last}"


def _trust(document: dict[str, Any]) -> str:
    roles = document["trust"]["roles"]
    if not roles:
        return "no signed metadata yet"
    first = roles[0]
    name, days = f"{first['name']} (version {first['version']})", first["days_left"]
    if days <= 0:
        return f"{len(roles)} roles, {name} expired {-days:g} days ago"
    return f"{len(roles)} roles, the first to expire is {name} in {days:g} days"


def _reports(document: dict[str, Any], now: float) -> str:
    """Return what is told about this machine, in a line; nothing where nothing is."""
    reports = document.get("reports")
    if not reports or not reports["send"]:
        return ""
    line = f"to {reports['url']}, last taken {_ago(reports['sent_at'], now)}"
    if reports["waiting"]:
        line += f", {reports['waiting']} waiting"
        if reports["next_attempt_at"] and reports["error"]:
            line += f" (next attempt {_ago(reports['next_attempt_at'], now)})"
    if reports["lost"]:
        line += f", {reports['lost']} lost"
    if reports["error"]:
        line += f": {reports['error']['message']} ({reports['error']['code']})"
    return line


def _product(product: dict[str, Any], now: float) -> list[str]:
    installed = product["installed"]
    shown = (
        f"{installed['version']}, installed {_ago(installed['since'], now)}"
        if installed
        else "not installed"
    )
    lines = [f"  {product['name']:<9} {shown} (channel {product['channel']})"]

    def add(label: str, text: str) -> None:
        lines.append(f"    {label:<9} {text}")

    decision = product["decision"]
    checked = f" (checked {_ago(product['checked_at'], now)})"
    add(
        "decision",
        decision["reason"] + (checked if product["checked_at"] else ""),
    )
    if product["hold"]:
        until = product["hold"]["until"]
        moment = local(until) if until else "further notice"
        why = product["hold"]["reason"]
        at = product["hold"].get("at")
        place = f"at {at} " if at else ""
        add("hold", f"{place}until {moment}" + (f" ({why})" if why else ""))
    if product["deployment"]:
        at_work = product["deployment"]
        progress = f", {text}" if (text := progress_of(product)) else ""
        add("now", f"{at_work['version']}: {at_work['state'].lower()}{progress}")
    if product["last"]:
        add(
            "last",
            f"{outcome(product['last'])}, {_ago(product['last']['ended_at'], now)}",
        )
    if product["next_attempt_at"]:
        add("next", f"attempt {_ago(product['next_attempt_at'], now)}")
    return lines


def progress_of(product: dict[str, Any]) -> str:
    """Return how far the download of a product is, in a few words; "": there is none.

    A document that an older daemon published says nothing of it.
    """
    from updaterd.core.units import format_bytes

    progress = product.get("progress")
    if not progress:
        return ""
    done, total = format_bytes(progress["done"]), format_bytes(progress["total"])
    return f"{progress['percent']} %, {done} of {total}"


def outcome(deployment: dict[str, Any]) -> str:
    """Return how a deployment ended, in a line."""
    from updaterd.core.units import format_bytes

    came_from = deployment["from_version"] or "nothing"
    ended = deployment["state"].lower().replace("_", " ")
    if deployment["trigger"] == "rollback" and deployment["state"] == "INSTALLED":
        ended = "rolled back by hand"
    line = f"{ended}: {came_from} -> {deployment['version']}"
    if deployment["bytes_fetched"] or deployment["bytes_planned"]:
        line += f", {format_bytes(deployment['bytes_fetched'])} fetched"
        if deployment["bytes_full"]:
            line += f" of {format_bytes(deployment['bytes_full'])} in full"
    if deployment["state"] != "INSTALLED" and deployment["reason"]:
        line += f" ({deployment['reason']})"
    return line
