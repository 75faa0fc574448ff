# SPDX-License-Identifier: Apache-2.0
"""`updaterd release publish|promote|rollout|pause|resume|yank`: steer a channel."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from updaterd.cli.release import common

if TYPE_CHECKING:
    from updaterd.core.channel import ChannelPointer
    from updaterd.release.channels.steering import Steered, Wish
    from updaterd.release.repository.catalog import Catalog


def configure(commands: common.Subcommands) -> None:
    """Declare the arguments."""
    publish = common.add(
        commands,
        "publish",
        run_publish,
        "point a channel to a release",
        "An older release is allowed: machines step back to it, all of them, not below "
        "the\nfloor. What is on offer already stays as it is.\n",
    )
    common.add_release(publish)
    common.add_without(publish)
    common.add_rollout(publish)
    promote = common.add(
        commands, "promote", run_promote, "offer in one channel what another offers"
    )
    promote.add_argument("--product", required=True, metavar="NAME")
    promote.add_argument("--from", dest="source", required=True, metavar="CHANNEL")
    promote.add_argument("--to", dest="channel", required=True, metavar="CHANNEL")
    common.add_without(promote)
    common.add_rollout(promote)
    rollout = common.add(
        commands, "rollout", run_rollout, "widen (or narrow) the newest rollout"
    )
    rollout.add_argument("--product", required=True, metavar="NAME")
    rollout.add_argument("--channel", required=True, metavar="NAME")
    rollout.add_argument("--permille", type=common.PERMILLE, required=True, metavar="N")
    rollout.add_argument("--window-s", type=common.WINDOW_S, metavar="SECONDS")
    for name, what in (
        ("pause", "stop installing from a channel"),
        ("resume", "install from a channel again"),
    ):
        parser = common.add(commands, name, run_pause, what)
        parser.add_argument("--product", required=True, metavar="NAME")
        parser.add_argument("--channel", required=True, metavar="NAME")
        parser.set_defaults(paused=name == "pause")
        publish_options(parser)
    yank = common.add(
        commands,
        "yank",
        run_yank,
        "withdraw a release from all channels and from the releases role",
        "Says first what each channel offers then: the newest that it offered to all "
        "before.\nMachines that have the withdrawn release step back to that.\n",
    )
    common.add_release(yank, channel=False)
    yank.add_argument("--dry-run", action="store_true", help="only say it")
    for parser in (publish, promote, rollout, yank):
        publish_options(parser)


def publish_options(parser: argparse.ArgumentParser) -> None:
    """Declare whom to tell and where the workspace is."""
    common.add_feed(parser)
    common.add_workspace(parser)


def _steer(
    arguments: argparse.Namespace,
    change: "Callable[[Catalog], Steered]",
) -> int:
    """Change what one channel says, publish and announce it."""
    from updaterd.release import publish

    workspace = common.open_workspace(arguments)
    common.check_feed(arguments, workspace)
    with workspace.locked():
        repository = common.current(arguments, workspace)
        catalog = publish.catalog_of(workspace, repository, arguments.product)
        steered = change(catalog)
        if steered.changed:
            catalog.point(steered.pointer)
        repository.commit()
    show(steered.pointer)
    told(arguments, steered)
    common.tell_feed(arguments, workspace, repository, steered.pointer)
    return 0


def told(arguments: argparse.Namespace, *every: "Steered") -> None:
    """Say what else the publisher should know about channels that were changed."""
    for steered in every:
        for note in steered.notes:
            print(f"note: {note}")
        if steered.pointer.paused:
            print(
                "the channel is paused, machines install nothing from it: "
                "`updaterd release resume`"
            )
    common.answer(
        arguments,
        channels=[each.pointer.as_custom() for each in every],
        changed=[each.pointer.channel for each in every if each.changed],
        told=[note for each in every for note in each.notes],
    )


def show(pointer: "ChannelPointer") -> None:
    """Print what a channel offers."""
    state = "paused" if pointer.paused else "active"
    print(f"{pointer.product}/{pointer.channel}: {state}", end="")
    print(f", floor seq {pointer.floor_seq}" if pointer.floor_seq else "")
    for each in pointer.releases:
        rollout = each.rollout
        window = f" over {rollout.window_s} s" if rollout.window_s else ""
        urgent = ", critical" if each.urgency == "critical" else ""
        whose = f" for {', '.join(each.platforms)}" if each.platforms else ""
        print(
            f"  {each.version} (seq {each.seq}): {rollout.permille} of 1000 machines"
            f"{whose}{window}{urgent}"
        )
    if not pointer.releases:
        print("  offers nothing yet")


def _wish(arguments: argparse.Namespace, version: str, *, back: bool) -> "Wish":
    from updaterd.release.channels.steering import Wish

    return Wish(
        version=version,
        permille=arguments.permille,
        window_s=arguments.window_s,
        urgency="critical" if arguments.critical else "normal",
        without=arguments.without,
        back=back,
    )


def run_publish(arguments: argparse.Namespace) -> int:
    """Point a channel to a release."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels import steering

        wish = _wish(arguments, arguments.version, back=True)
        return steering.put(catalog, arguments.channel, wish)

    return _steer(arguments, change)


def run_promote(arguments: argparse.Namespace) -> int:
    """Offer in one channel what another offers."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels import steering

        wish = _wish(arguments, "", back=False)
        wish = steering.promotion(catalog, arguments.source, wish)
        return steering.put(catalog, arguments.channel, wish)

    return _steer(arguments, change)


def run_rollout(arguments: argparse.Namespace) -> int:
    """Widen or narrow the newest rollout."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels import steering

        return steering.reach(
            catalog, arguments.channel, arguments.permille, arguments.window_s
        )

    return _steer(arguments, change)


def run_pause(arguments: argparse.Namespace) -> int:
    """Pause or resume."""

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels.steering import Steered

        before = catalog.pointer(arguments.channel)
        pointer = replace(before, paused=arguments.paused)
        return Steered(before=before, pointer=pointer)

    return _steer(arguments, change)


def run_yank(arguments: argparse.Namespace) -> int:
    """Withdraw a release.

    Raises:
        UpdaterError: not everybody could be told; it is withdrawn all the same.
    """
    from updaterd.errors import UpdaterError
    from updaterd.release import publish
    from updaterd.release.channels import steering

    workspace = common.open_workspace(arguments)
    common.check_feed(arguments, workspace)
    with workspace.locked():
        repository = common.current(arguments, workspace)
        catalog = publish.catalog_of(workspace, repository, arguments.product)
        changed = steering.yank(catalog, arguments.version)
        _foretell(arguments, changed)
        if arguments.dry_run:
            return 0
        repository.commit()
    print(f"yanked {arguments.product} {arguments.version}")
    again = "`updaterd release refresh`"
    untold: list[tuple[str, UpdaterError]] = []
    for each in changed:
        pointer = each.pointer
        try:
            common.tell_feed(arguments, workspace, repository, pointer, again=again)
        except UpdaterError as error:  # a token may be for some channels only
            untold.append((pointer.channel, error))
    if untold:
        first = untold[0][1]
        if len(changed) > 1:
            first.details = tuple(f"{name}: {error.what}" for name, error in untold)
        raise first
    return 0


def _foretell(arguments: argparse.Namespace, changed: "list[Steered]") -> None:
    """Say, before it is done, what every channel will offer then."""
    print(f"without {arguments.product} {arguments.version}:")
    for each in changed:
        show(each.pointer)
    if not changed:
        print("no channel offers it: none changes")
    told(arguments, *changed)
    sys.stdout.flush()
