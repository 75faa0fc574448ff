# SPDX-License-Identifier: Apache-2.0
"""Changing what one channel offers, and publishing that."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    acts,
    delivery,
    feed,
    opening,
    options,
    output,
)

if TYPE_CHECKING:
    from updaterd.release.channels.steering import Steered, Wish
    from updaterd.release.repository.catalog import Catalog


def steer(
    arguments: argparse.Namespace,
    change: "Callable[[Catalog], Steered]",
) -> int:
    """Change what one channel says, publish and announce it."""
    from updaterd.release import publish

    workspace = opening.workspace(arguments)
    feed.check(arguments, workspace)
    with workspace.locked():
        repository = opening.current(arguments, workspace)
        catalog = publish.catalog_of(workspace, repository, arguments.product)
        steered = change(catalog)
        if steered.changed:
            catalog.point(steered.pointer)
        acts.enter(arguments, workspace, repository, [steered])
        repository.commit()
    output.show_channel(steered.pointer)
    output.show_notes(arguments, steered)
    delivery.deliver(arguments, workspace)
    feed.announce(arguments, workspace, repository, steered.pointer)
    return 0


def wish(arguments: argparse.Namespace, version: str, *, back: bool) -> "Wish":
    """Return what the arguments want a channel to offer."""
    from updaterd.release.channels.steering import Wish

    return Wish(
        version=version,
        permille=arguments.permille,
        window_s=arguments.window_s,
        tags=arguments.tags,
        urgency="critical" if arguments.critical else "normal",
        without=arguments.without,
        back=back,
    )


def add_options(parser: argparse.ArgumentParser, *, to: bool = True) -> None:
    """Declare whom to tell and where the workspace is."""
    options.add_feed(parser, to=to)
    options.add_workspace(parser)
