# SPDX-License-Identifier: Apache-2.0
"""`updaterd release sync`: bring destinations to the repository's state."""

import argparse
import sys

from updaterd.cli.release.parts import (
    delivery,
    destinations,
    feed,
    opening,
    options,
)

MORE = """\
Sends what is missing there, and what differs; then says there what is published here.
After an upload that was cut short, this finishes it. Signs nothing. A destination that
is newer than this repository is left as it is.
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    sync = options.command(
        commands, "sync", run, "bring destinations to the repository's state", MORE
    )
    options.add_feed(sync)
    options.add_workspace(sync)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.cli import EXIT_USAGE

    workspace = opening.workspace(arguments)
    feed.check(arguments, workspace)
    if not destinations.destinations(arguments, workspace):
        print(
            "updaterd release sync: where to? Name --to, or set `to` in release.toml",
            file=sys.stderr,
        )
        return EXIT_USAGE
    delivery.deliver(arguments, workspace, thorough=True)
    if arguments.feed or workspace.settings.feed:
        repository = opening.published(workspace)
        feed.announce(arguments, workspace, repository, None, again=destinations.AGAIN)
    return 0
