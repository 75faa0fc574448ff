# SPDX-License-Identifier: Apache-2.0
"""`updaterd release refresh`: sign what nears its expiry."""

import argparse
import sys
from contextlib import suppress

from updaterd.cli.release.parts import (
    delivery,
    feed,
    opening,
    options,
    output,
)


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    refresh = options.command(
        commands,
        "refresh",
        run,
        "sign the timestamp anew, and each role that expires soon",
        "Run it daily from a timer. Exit code 20: the keys of a role are not on this "
        "machine.\n",
    )
    options.add_feed(refresh)
    options.add_workspace(refresh)


def run(arguments: argparse.Namespace) -> int:
    """Sign what needs it."""
    from updaterd.cli import EXIT_DEGRADED
    from updaterd.errors import UpdaterError
    from updaterd.release.upkeep import expiry, garbage

    workspace = opening.workspace(arguments)
    now = opening.clock()
    with workspace.locked():
        repository = opening.current(arguments, workspace)
        signed, missing = expiry.refresh(workspace, repository, now)
        with suppress(UpdaterError):  # a damaged file: `verify` says which
            garbage.note(workspace, repository)
    print(f"signed: {', '.join(signed)}")
    output.answer(arguments, signed=signed, missing=missing)
    for line in missing:
        print(f"not signed: {line}", file=sys.stderr)
    delivery.deliver(arguments, workspace)
    feed.announce(
        arguments, workspace, repository, None, again="`updaterd release refresh`"
    )
    return EXIT_DEGRADED if missing else 0
