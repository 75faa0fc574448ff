# SPDX-License-Identifier: Apache-2.0
"""`updaterd run`: the daemon."""

import argparse
import os
import sys

from updaterd.cli.parts.options import add_machine_options, config_of


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
    """Become the daemon: same process, without what parsed the command line."""
    from updaterd.daemon import bytecode

    options = {
        "log": arguments.log,
        "config": config_of(arguments),
        "state": arguments.state_dir,
        "cache": arguments.cache_dir,
        "runtime": arguments.runtime_dir,
        "demo": "yes" if arguments.demo else None,
    }
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    python = [sys.executable, "-I", *bytecode.options()]
    os.execv(sys.executable, [*python, "-m", "updaterd.daemon", *words])  # noqa: S606 - ourselves
