# SPDX-License-Identifier: Apache-2.0
"""`updaterd release sync`: bring destinations to the repository's state."""

import argparse

from updaterd.cli.release.parts import (
    delivery,
    destinations,
    feed,
    opening,
    options,
    output,
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
    workspace = opening.workspace(arguments)
    feed.check(arguments, workspace)
    if not destinations.destinations(arguments, workspace):
        return output.usage(
            arguments, "where to? Name --to, or set `to` in release.toml"
        )
    delivery.deliver(arguments, workspace, thorough=True)
    repository = opening.published(workspace)
    feed.announce(arguments, workspace, repository, None, again=destinations.AGAIN)
    return 0
