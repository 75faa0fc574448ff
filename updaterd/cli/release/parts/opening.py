# SPDX-License-Identifier: Apache-2.0
"""The workspace, the clock, and the repository as it is published."""

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    destinations,
    passphrases,
)
from updaterd.clocks import wall_clock

if TYPE_CHECKING:
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


def clock() -> datetime:
    """Return the time: the command line is where it enters.

    Raises:
        BrokenError: the clock cannot be right.
    """
    return plausible(datetime.fromtimestamp(wall_clock(), UTC))


def plausible(now: datetime) -> datetime:
    """Return what the clock says.

    Raises:
        BrokenError: a time before this updaterd was made. What is signed by it would
            have expired when machines see it.
    """
    from updaterd.trust.clock import BUILT

    if now < BUILT:
        from updaterd.errors import BrokenError

        raise BrokenError(
            f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, "
            "before updaterd was built",
            means="nothing was changed: machines would take what is signed now for "
            "expired",
            do="set the clock (timedatectl), then run the same command again",
            code="clock_suspect",
        )
    return now


def published(workspace: "Workspace") -> "Repository":
    """Return the repository as published now; warn when it was signed in the future.

    Raises:
        BrokenError: there is none.
    """
    from updaterd.release import publish
    from updaterd.trust.clock import ahead

    now = clock()
    repository = publish.open_repository(workspace, now)
    if ahead(repository.timestamp, now):
        print(
            f"note: this machine's clock says {now:%Y-%m-%d %H:%M} UTC, and the "
            "repository was signed later than that. If the clock is wrong, set it: "
            "machines may take what it signs for expired",
            file=sys.stderr,
        )
    return repository


def current(arguments: argparse.Namespace, workspace: "Workspace") -> "Repository":
    """Return the repository, to be changed: not from behind what is out.

    Raises:
        BrokenError: there is none, or what is out is newer.
        RejectedError: what is out is another repository.
        TransientError: what is out cannot be asked for, where an address was given.
        behind: what is out is newer.
    """
    repository = published(workspace)
    destinations.compare(arguments, workspace, repository)
    location = served_at(arguments, workspace)
    if location is None or arguments.no_compare:
        return repository
    address, named = location
    from updaterd.errors import RejectedError, TransientError
    from updaterd.net import Fetcher
    from updaterd.release.upkeep.outside import Served, behind

    ca_file = getattr(arguments, "ca_file", None)
    with Fetcher(ca_file=ca_file, deadline_s=15.0) as fetcher:
        try:
            out = Served(fetcher, address).look(repository)
        except (TransientError, RejectedError) as error:
            if not named:
                return repository  # a feed need not serve files
            error.means = "the published copy cannot be compared with this workspace"
            error.do = f"see to {address}; --no-compare publishes without that"
            raise
    ahead = out.ahead_of(repository) if out is not None else ()
    if ahead:
        raise behind(address, ahead)
    return repository


def served_at(
    arguments: argparse.Namespace, workspace: "Workspace"
) -> tuple[str, bool] | None:
    """Return the address of what is out, and whether somebody named it."""
    named = arguments.served_at or workspace.settings.served_at
    if named:
        return named, True
    if getattr(arguments, "no_announce", False):
        return None
    feed = getattr(arguments, "feed", None) or workspace.settings.feed
    events = "/v1/events"
    if feed is None or not feed.endswith(events):
        return None
    return f"{feed.removesuffix(events)}/repo", False


def workspace(arguments: argparse.Namespace) -> "Workspace":
    """Return the workspace that the arguments name.

    Raises:
        BrokenError: there is none.
    """
    from updaterd.release.workspace import Workspace

    passphrase, pin = passphrases.passphrase(arguments), passphrases.pin(arguments)
    return Workspace(arguments.repo, passphrase, pin)
