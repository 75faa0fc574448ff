# SPDX-License-Identifier: Apache-2.0
"""`updaterd session`: tell a person on his desktop what is ready; a user unit."""

import argparse
import asyncio
import os
from pathlib import Path

from updaterd.cli.desktop import add_socket


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_socket(parser)
    parser.add_argument(
        "--memory",
        type=Path,
        metavar="FILE",
        help="what was shown before (default: session.json in "
        "$XDG_STATE_HOME/updaterd)",
    )
    parser.epilog = (
        "One notice when a release is ready, never twice; gone when it is done; one\n"
        "an hour before it is activated whatever asks it to wait, one after a\n"
        "roll back. Needs the extra `desktop`. In a session of systemd's:\n"
        "`systemctl --user enable --now updaterd-session`."
    )


def run(arguments: argparse.Namespace) -> int:
    """Tell until it is stopped.

    Raises:
        BrokenError: jeepney is not installed.
        TransientError: updaterd, or the desktop, is not there.
    """
    from updaterd.clocks import wall_clock
    from updaterd.errors import BrokenError, TransientError

    try:
        from updaterd.session.process import Session
    except ImportError as error:
        raise BrokenError(
            f"this updaterd cannot talk to a desktop: {error}",
            do="install jeepney (pip: updaterd[desktop])",
            code="broken",
        ) from error
    session = Session(
        arguments.socket,
        arguments.memory or _memory(),
        now=wall_clock,
    )
    try:
        asyncio.run(session.run())
    except* (OSError, KeyError) as errors:
        raise TransientError(
            f"no desktop is here: {errors.exceptions[0]}",
            do="start it in a session: `systemctl --user start updaterd-session`",
        ) from errors
    return 0


def _memory() -> Path:
    named = os.environ.get("XDG_STATE_HOME", "")
    base = Path(named) if named.startswith("/") else Path.home() / ".local/state"
    return base / "updaterd" / "session.json"
