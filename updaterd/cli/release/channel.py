"""`updaterd release publish|promote|rollout|pause|resume|yank`: steer a channel."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from updaterd.cli.release import common

if TYPE_CHECKING:
    from updaterd.core.channel import ChannelPointer
    from updaterd.release.catalog import Catalog


def configure(commands: common.Subcommands) -> None:
    """Declare the arguments."""
    publish = common.add(
        commands,
        "publish",
        run_publish,
        "point a channel to a release",
        "An older release is allowed: machines step back to it, not below the floor.\n",
    )
    common.add_release(publish)
    common.add_rollout(publish)
    promote = common.add(
        commands, "promote", run_promote, "offer in one channel what another offers"
    )
    promote.add_argument("--product", required=True, metavar="NAME")
    promote.add_argument("--from", dest="source", required=True, metavar="CHANNEL")
    promote.add_argument("--to", dest="channel", required=True, metavar="CHANNEL")
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
        "Machines that have it step back to what the channel then offers.\n",
    )
    common.add_release(yank, channel=False)
    for parser in (publish, promote, rollout, yank):
        publish_options(parser)


def publish_options(parser: argparse.ArgumentParser) -> None:
    """Declare whom to tell and where the workspace is."""
    common.add_feed(parser)
    common.add_workspace(parser)


def _steer(
    arguments: argparse.Namespace,
    change: "Callable[[Catalog, ChannelPointer], ChannelPointer]",
) -> int:
    """Change one channel's pointer, publish and announce it."""
    from updaterd.release import publish

    workspace = common.open_workspace(arguments)
    common.check_feed(arguments, workspace)
    with workspace.locked():
        repository = common.opened(workspace)
        catalog = publish.catalog_of(workspace, repository, arguments.product)
        before = catalog.pointer(arguments.channel)
        pointer = change(catalog, before)
        if pointer != before:
            catalog.point(pointer)
        repository.commit()
    show(pointer)
    common.tell_feed(arguments, workspace, repository, pointer)
    return 0


def show(pointer: "ChannelPointer") -> None:
    """Print what a channel offers."""
    state = "paused" if pointer.paused else "active"
    print(f"{pointer.product}/{pointer.channel}: {state}", end="")
    print(f", floor seq {pointer.floor_seq}" if pointer.floor_seq else "")
    for each in pointer.releases:
        rollout = each.rollout
        window = f" over {rollout.window_s} s" if rollout.window_s else ""
        urgent = ", critical" if each.urgency == "critical" else ""
        print(
            f"  {each.version} (seq {each.seq}): {rollout.permille} of 1000 machines"
            f"{window}{urgent}"
        )
    if not pointer.releases:
        print("  offers nothing yet")


def run_publish(arguments: argparse.Namespace) -> int:
    """Point a channel to a release."""

    def change(catalog: "Catalog", pointer: "ChannelPointer") -> "ChannelPointer":
        from updaterd.release import publish

        return publish.offer(
            pointer,
            arguments.version,
            catalog.require(arguments.version).seq,
            permille=arguments.permille,
            window_s=arguments.window_s,
            urgency="critical" if arguments.critical else "normal",
        )

    return _steer(arguments, change)


def run_promote(arguments: argparse.Namespace) -> int:
    """Offer in one channel what another offers."""

    def change(catalog: "Catalog", pointer: "ChannelPointer") -> "ChannelPointer":
        from updaterd.release import publish

        newest = publish.newest(catalog.pointer(arguments.source))
        return publish.offer(
            pointer,
            newest.version,
            newest.seq,
            permille=arguments.permille,
            window_s=arguments.window_s,
            urgency="critical" if arguments.critical else newest.urgency,
        )

    return _steer(arguments, change)


def run_rollout(arguments: argparse.Namespace) -> int:
    """Widen or narrow the newest rollout."""

    def change(catalog: "Catalog", pointer: "ChannelPointer") -> "ChannelPointer":
        from updaterd.release import publish

        newest = publish.newest(pointer)
        window_s = arguments.window_s
        return publish.offer(
            pointer,
            newest.version,
            catalog.require(newest.version).seq,
            permille=arguments.permille,
            window_s=newest.rollout.window_s if window_s is None else window_s,
            urgency=newest.urgency,
        )

    return _steer(arguments, change)


def run_pause(arguments: argparse.Namespace) -> int:
    """Pause or resume."""
    return _steer(
        arguments, lambda _catalog, pointer: replace(pointer, paused=arguments.paused)
    )


def run_yank(arguments: argparse.Namespace) -> int:
    """Withdraw a release.

    Raises:
        UpdaterError: not everybody could be told; it is withdrawn all the same.
    """
    from updaterd.errors import UpdaterError
    from updaterd.release import publish

    workspace = common.open_workspace(arguments)
    common.check_feed(arguments, workspace)
    with workspace.locked():
        repository = common.opened(workspace)
        catalog = publish.catalog_of(workspace, repository, arguments.product)
        changed = publish.yank(catalog, arguments.version)
        repository.commit()
    print(f"yanked {arguments.product} {arguments.version}")
    for pointer in changed:
        show(pointer)
    again = "`updaterd release refresh`"
    untold: list[tuple[str, UpdaterError]] = []
    for pointer in changed:
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
