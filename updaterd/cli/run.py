"""`updaterd run`: the daemon."""

import argparse
from pathlib import Path

from updaterd.cli.common import (
    add_machine_options,
    random_draw,
    settings_from,
    wall_clock,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--log",
        choices=("auto", "human", "json", "journal"),
        default="auto",
        help="how to log (default: journal under systemd, lines on a terminal)",
    )
    parser.epilog = (
        "Holds the subscription open, stores events, starts `updaterd update` for\n"
        "what is due, and publishes status.json. SIGTERM ends it, SIGHUP makes it\n"
        "read its configuration again, SIGUSR1 makes it look for updates now."
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the daemon until it is told to stop."""
    from updaterd import locks, log
    from updaterd.daemon import service

    log.configure(stream=arguments.log)
    settings = settings_from(arguments)
    runtime = Path(settings.directories.runtime)
    with locks.hold(runtime / "lock", what="this machine (the daemon is running)"):
        # The last daemon's names a process that may be anybody's by now, and
        # `updaterd check` sends it a signal.
        (runtime / "status.json").unlink(missing_ok=True)
        return service.serve(
            lambda: settings_from(arguments), now=wall_clock, draw=random_draw
        )
