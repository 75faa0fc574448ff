# SPDX-License-Identifier: Apache-2.0
"""`updaterd reports`: what this machine tells about its updates, byte for byte."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updaterd.cli.parts.options import (
    add_machine_options,
    random_draw,
    settings_from,
    wall_clock,
)

if TYPE_CHECKING:
    from updaterd.core.settings import Settings
    from updaterd.reports.send import Sent
    from updaterd.store.journal import Journal
    from updaterd.store.outbox import Outbox

_REQUEST_S = 10.0
_AFTER_UPDATE_S = 10.0
_SEND_S = 100.0  # less than the daemon's patience with the process (`daemon/mail.py`)
_EXPLAINED = """\
A machine reports nothing unless `[reports]` in its configuration says `send = true`.
Then the end of each deployment is one report: codes and numbers, no name, user, path
or address. docs/privacy.md has every field, and who sees it. What is printed here are
the bytes that were sent or will be.

examples:
  updaterd reports                what was sent, and what waits
  updaterd reports --send         send now what waits
  updaterd reports --forget       delete all of it; the next report has a new id,
                                  which nobody can link to the old one
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--send", action="store_true", help="send what waits, now")
    act.add_argument(
        "--forget",
        action="store_true",
        help="delete what is kept here, and become a machine that nobody knows",
    )
    parser.add_argument("--json", action="store_true", help="one document for scripts")
    parser.epilog = _EXPLAINED
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show, send or forget."""
    settings = settings_from(arguments)
    if arguments.send:
        return _send(settings, as_json=arguments.json)
    if arguments.forget:
        return _forget(settings, as_json=arguments.json)
    return _show(settings, as_json=arguments.json)


def _send(settings: "Settings", *, as_json: bool) -> int:
    from contextlib import closing

    from updaterd.store.outbox import Outbox
    from updaterd.store.schema import open_state

    if not settings.reports.send:
        print("this machine reports nothing: `[reports]` does not say `send = true`")
        return 0
    state = Path(settings.directories.state)
    with closing(open_state(state / "state.db")) as connection:
        outbox = Outbox(connection)
        sent = flush(settings, outbox, within_s=_SEND_S, at_once=True)
        waits = outbox.sending()
    if as_json:
        document = {"sent": sent.sent, "dropped": sent.dropped}
        print(json.dumps({"schema": 1, **document, "waiting": sent.waiting}))
        return 0
    print(f"{sent.sent} sent, {sent.dropped} dropped, {sent.waiting} waiting")
    if sent.waiting and waits.error:
        from updaterd.core.text import printable

        print(printable(f"  {waits.error} ({waits.code})"))
    return 0


def _forget(settings: "Settings", *, as_json: bool) -> int:
    from contextlib import closing

    from updaterd.store.outbox import Outbox
    from updaterd.store.schema import open_state

    state = Path(settings.directories.state)
    with closing(open_state(state / "state.db")) as connection:
        count = Outbox(connection).forget()
    if as_json:
        print(json.dumps({"schema": 1, "deleted": count}))
        return 0
    print(f"{count} reports deleted; the next one bears an id that nobody has seen")
    if settings.reports.network.headers or settings.reports.network.headers_file:
        print("  note: the headers of `[reports]` may still say who this machine is")
    return 0


def _show(settings: "Settings", *, as_json: bool) -> int:
    from contextlib import closing

    from updaterd import status
    from updaterd.cli.parts.page import local
    from updaterd.core.text import printable, public_url
    from updaterd.store.outbox import Outbox
    from updaterd.store.schema import open_for_reading

    reports = settings.reports
    state = Path(settings.directories.state)
    connection = open_for_reading(state / "state.db")
    rows: list[dict[str, Any]] = []
    if connection is not None:
        with closing(connection):
            rows = [
                {
                    "id": row.id,
                    "state": row.state,
                    "made_at": status.iso(row.moment.at),
                    "sent_at": status.iso(row.sent_at),
                    "reason": row.reason,
                    "body": row.body.decode(),
                }
                for row in Outbox(connection).all()
            ]
    url = public_url(reports.url)
    if as_json:
        document = {"send": reports.send, "url": url, "tags": list(reports.tags)}
        print(json.dumps({"schema": 1, **document, "reports": rows}))
        return 0
    if reports.send:
        print(printable(f"reports go to {url}"))
    else:
        print("this machine reports nothing: `[reports]` does not say `send = true`")
    for row in rows:
        when = local(row["sent_at"] or row["made_at"] or "")
        why = f" ({row['reason']})" if row["reason"] else ""
        print(printable(f"{row['state']} {when}{why}"))
        print(printable(f"  {row['body']}", longest=4096))
    if not rows:
        print("nothing was reported, and nothing waits")
    return 0


def flush(
    settings: "Settings", outbox: "Outbox", *, within_s: float, at_once: bool
) -> "Sent":
    """Send what waits in the outbox.

    Args:
        settings: with `[reports]`.
        outbox: where they are.
        within_s: how long all of it may take.
        at_once: a person asks, or the daemon, which looked at the time.

    Raises:
        BrokenError: the network settings of `[reports]` cannot be used.
        sqlite3.Error: the outbox cannot be written.
    """
    from updaterd.clocks import steady_clock
    from updaterd.net import Fetcher
    from updaterd.reports.send import Sender

    reports = settings.reports
    network = reports.network
    with Fetcher(
        headers=network.headers,
        headers_file=network.headers_file,
        token_file=network.token_file,
        ca_file=network.ca_file,
        proxy=network.proxy,
        origin=reports.url,
        deadline_s=_REQUEST_S,
    ) as fetcher:
        return Sender(
            settings=reports,
            outbox=outbox,
            fetcher=fetcher,
            state=Path(settings.directories.state),
            now=wall_clock,
            steady=steady_clock,
            draw=random_draw,
        ).send(within_s=within_s, at_once=at_once)


def after_update(settings: "Settings", journal: "Journal") -> None:
    """Send what a run has made; whatever goes wrong is nobody's concern here.

    What stays is sent by the daemon's own short process, and `status` names why.
    """
    import contextlib
    import sqlite3

    from updaterd.errors import UpdaterError

    outbox = journal.outbox
    with contextlib.suppress(UpdaterError, OSError, sqlite3.Error):
        if outbox.count():
            flush(settings, outbox, within_s=_AFTER_UPDATE_S, at_once=False)
