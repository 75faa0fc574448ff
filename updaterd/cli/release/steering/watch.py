# SPDX-License-Identifier: Apache-2.0
"""`updaterd release watch`: rollouts that have a plan go on, or halt, by themselves."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import feed, opening, options, output
from updaterd.cli.release.parts import steering as steer
from updaterd.cli.release.parts.rollouts import watching

if TYPE_CHECKING:
    from updaterd.cli.release.parts.rollouts.watched import Watched

MORE = """\
Reads what machines reported, and for each channel whose newest release has a plan
(push --plan) does one of three things: waits, goes on to the next step, or halts it: a
signed pause with its reason, pushed like a release. It needs the online key, and a
token with the scopes fleet:read and publish. Where reports cannot be read, it says so
and moves nothing. Where the channel needs two signatures, it lays a proposal into
proposals/ and says whom to ask; --once then ends with 1 for a halt, which is not in
force yet. Any number may run at once. Ends with Ctrl-C.
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    watch = options.command(
        commands, "watch", run, "let rollouts go on, or halt, by themselves", MORE
    )
    watch.add_argument("--once", action="store_true", help="look once, act, and end")
    watch.add_argument(
        "--every",
        type=options.number(1, 86400),
        default=60,
        metavar="SECONDS",
        help="look so often (default: 60)",
    )
    watch.add_argument("--product", metavar="NAME", help="only this product")
    watch.add_argument("--channel", metavar="NAME", help="only this channel")
    watch.add_argument(
        "--reports",
        metavar="URL",
        help="address of /v1/fleet (default: beside the feed)",
    )
    watch.add_argument(
        "--reports-token-file",
        type=Path,
        metavar="FILE",
        help="bearer token with the scope fleet:read (default: $UPDATERD_FLEET_TOKEN, "
        "the credential updaterd.fleet-token, else the publishing token)",
    )
    steer.add_options(watch)


def run(arguments: argparse.Namespace) -> int:
    """Watch.

    Raises:
        UpdaterError: with --once, what went wrong.
    """
    from updaterd.errors import UpdaterError

    if arguments.json and not arguments.once:
        return output.usage(arguments, "--json goes with --once")
    workspace = opening.workspace(arguments)
    try:
        feed.check(arguments, workspace)
    except UpdaterError as error:
        error.means = "nothing moves: what watch signs could not be announced"
        raise
    reader = watching.reader(arguments, workspace)
    drawn = sys.stdout.isatty() and not arguments.once
    page = ""
    with reader:
        while True:
            if arguments.once:
                looked = watching.look(arguments, workspace, reader)
                return _ended(arguments, looked)
            try:
                looked = watching.look(arguments, workspace, reader)
                shown = "\n".join([*_lines(looked.rows), *map(str, looked.errors)])
            except (UpdaterError, OSError) as error:
                shown = f"nothing moves: {error}"
            if drawn:
                print(f"\x1b[2J\x1b[H{shown}", flush=True)
            elif shown != page:
                print(shown, flush=True)
            page = shown
            try:
                time.sleep(arguments.every)
            except KeyboardInterrupt:
                return 0


def _ended(arguments: argparse.Namespace, looked: watching.Looked) -> int:
    """Show one look.

    Raises:
        UpdaterError: the first thing that went wrong.
    """
    output.answer(arguments, channels=[row.as_json() for row in looked.rows])
    print("\n".join(_lines(looked.rows)), flush=True)
    if looked.error is not None:
        raise looked.error
    return 0


def _lines(rows: "tuple[Watched, ...]") -> list[str]:
    """Return the page, line by line."""
    from updaterd.core.text import printable

    if not rows:
        return ["no channel's newest release has a plan: `release push --plan`"]
    return [printable(line) for row in rows for line in row.lines()]
