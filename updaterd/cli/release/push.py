"""`updaterd release push` and `add`: a directory becomes a release."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release import common

if TYPE_CHECKING:
    from updaterd.release.build import Built
    from updaterd.release.publish import Added, Order
    from updaterd.release.workspace import Workspace

MORE = """\
Builds the full bundle and deltas from the last releases, signs the manifest, points
the channel to it, publishes and announces. If it dies, run it again: it finishes.
"""


def configure(commands: common.Subcommands) -> None:
    """Declare the arguments."""
    push = common.add(
        commands, "push", run, "build, sign, publish and announce a release", MORE
    )
    _add_tree(push)
    common.add_release(push)
    _add_build(push)
    common.add_rollout(push)
    common.add_feed(push)
    common.add_workspace(push)
    add = common.add(
        commands,
        "add",
        run_add,
        "build and sign a release without pointing a channel to it",
        "Another platform of a release gets the seq of the first.\n",
    )
    _add_tree(add)
    common.add_release(add, channel=False)
    _add_build(add)
    common.add_workspace(add)


def _add_tree(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tree", type=Path, metavar="TREE", help="directory that holds the application"
    )


def _add_build(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("release")
    group.add_argument("--platform", metavar="NAME", help="default: release.toml")
    group.add_argument(
        "--seq",
        type=common.SEQ,
        metavar="N",
        help="its place in the order (default: next)",
    )
    group.add_argument(
        "--deltas",
        type=common.number(0, 100),
        metavar="N",
        help="make deltas from the last N releases (default: release.toml, 5)",
    )
    group.add_argument(
        "--bsdiff",
        action="append",
        default=[],
        type=_patch,
        metavar="VERSION=PATCH",
        help="offer this patch, made by `bsdiff` from the release VERSION, as well",
    )
    group.add_argument("--min-updater", default="0.1.0", metavar="VERSION")
    group.add_argument(
        "--floor-seq",
        type=common.SEQ,
        default=0,
        metavar="N",
        help="once installed, never go below this seq again",
    )


def _patch(text: str) -> tuple[str, Path]:
    version, equals, path = text.partition("=")
    if not (version and equals and path):
        raise argparse.ArgumentTypeError("VERSION=PATCH, as in 1.2.0=app.bsdiff")
    return version, Path(path)


def _order(
    arguments: argparse.Namespace, workspace: "Workspace", channel: str | None = None
) -> "Order":
    from updaterd.release.publish import Order

    deltas = arguments.deltas
    return Order(
        product=arguments.product,
        version=arguments.version,
        channel=channel,
        platform=arguments.platform or workspace.settings.platform,
        seq=arguments.seq,
        deltas=workspace.settings.deltas if deltas is None else deltas,
        patches=tuple(arguments.bsdiff),
        min_updater=arguments.min_updater,
        floor_seq=arguments.floor_seq,
    )


def _make(workspace: "Workspace", tree: Path, order: "Order") -> "Built | Added":
    from updaterd.release import publish

    bar = common.Bar()
    try:
        return publish.prepare(workspace, tree, order, now=common.clock(), progress=bar)
    finally:
        bar.close()


def _show(added: "Added") -> None:
    manifest = added.manifest
    word = "released" if added.fresh else "already released:"
    print(
        f"{word} {manifest.product} {manifest.version} (seq {manifest.seq}, "
        f"{manifest.platform}): {len(manifest.files)} files, "
        f"{manifest.full.length:,} bytes full"
    )
    for edge in manifest.deltas:
        if edge.to_version == manifest.version:
            percent = 100 * edge.length / manifest.full.length
            print(
                f"  delta from {edge.from_version}: {edge.length:,} ({percent:.1f} %)"
            )
    for each in added.skipped:
        print(f"  no delta from {each}")
    for each in added.notes:
        print(f"  {each}")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.release import publish

    workspace = common.open_workspace(arguments)
    common.check_feed(arguments, workspace)
    order = _order(arguments, workspace, arguments.channel)
    made = _make(workspace, arguments.tree, order)
    with workspace.locked():
        repository = common.opened(workspace)
        catalog = publish.catalog_of(workspace, repository, order.product)
        added = (
            made
            if isinstance(made, publish.Added)
            else publish.enter(catalog, order, made)
        )
        before = catalog.pointer(arguments.channel)
        if not added.fresh:
            publish.check_not_back(before, added.manifest)
        pointer = publish.offer(
            before,
            order.version,
            added.manifest.seq,
            permille=arguments.permille,
            window_s=arguments.window_s,
            urgency="critical" if arguments.critical else "normal",
        )
        if pointer != before:
            catalog.point(pointer)
        repository.commit()
    _show(added)
    print(f"published in channel {arguments.channel}")
    if pointer.paused:
        print(
            "the channel is paused, machines install nothing from it: "
            "`updaterd release resume`"
        )
    common.tell_feed(arguments, workspace, repository, pointer)
    return 0


def run_add(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.release import publish

    workspace = common.open_workspace(arguments)
    order = _order(arguments, workspace)
    made = _make(workspace, arguments.tree, order)
    if isinstance(made, publish.Added):
        _show(made)
        return 0
    with workspace.locked():
        repository = common.opened(workspace)
        catalog = publish.catalog_of(workspace, repository, order.product)
        added = publish.enter(catalog, order, made)
        repository.commit()
    _show(added)
    print("no channel points to it yet: `updaterd release publish`")
    return 0
