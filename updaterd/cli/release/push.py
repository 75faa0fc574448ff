# SPDX-License-Identifier: Apache-2.0
"""`updaterd release push` and `add`: directories become a release."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release import common

if TYPE_CHECKING:
    from updaterd.release.build import Built
    from updaterd.release.publish import Added, Order
    from updaterd.release.workspace import Workspace

MORE = """\
Builds the full bundle and deltas from the last releases, signs the manifest, points
the channel to it, publishes and announces. If it dies, run it again: it finishes, and
changes nothing that stands.

Several platforms go out together:
  updaterd release push --tree linux-x86_64=build/x86 --tree linux-aarch64=build/arm ...
"""


def configure(commands: common.Subcommands) -> None:
    """Declare the arguments."""
    push = common.add(
        commands, "push", run, "build, sign, publish and announce a release", MORE
    )
    _add_tree(push)
    common.add_release(push)
    _add_build(push)
    common.add_without(push)
    common.add_rollout(push)
    common.add_feed(push)
    common.add_workspace(push)
    add = common.add(
        commands,
        "add",
        run_add,
        "build and sign a release without pointing a channel to it",
        "Another platform of a release gets the seq of the first. Channels offer it "
        "for that\nplatform once it is pushed or published there.\n",
    )
    _add_tree(add)
    common.add_release(add, channel=False)
    _add_build(add)
    common.add_compare(add)
    common.add_workspace(add)


def _add_tree(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="TREE",
        help="directory that holds the application, for --platform",
    )
    parser.add_argument(
        "--tree",
        action="append",
        default=[],
        type=_tree,
        metavar="PLATFORM=DIR",
        help="directory that holds it for this platform; may be repeated",
    )


def _add_build(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("release")
    group.add_argument(
        "--platform", metavar="NAME", help="of TREE (default: release.toml)"
    )
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
    group.add_argument(
        "--drop",
        type=_kinds,
        default=frozenset(),
        metavar="KIND,...",
        help="let go what the tree has and no release carries: setuid, setgid, sticky, "
        "capabilities, acl, xattr; without, such a tree is refused",
    )
    group.add_argument(
        "--carry",
        type=_rights,
        default=frozenset(),
        metavar="KIND,...",
        help="carry setuid, setgid, sticky, or writable (by group and others) to "
        "machines whose owners allow it (products.NAME.special_modes); others refuse "
        "the release",
    )
    group.add_argument(
        "--outside-links",
        action="store_true",
        help="carry links that are absolute or lead out of the tree, to machines whose "
        "owners allow it (products.NAME.outside_links); others refuse the release",
    )
    group.add_argument(
        "--strict-names",
        action="store_true",
        help="refuse names that differ only by case; without, they are only told",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="fail where a delta does not make the release when it is applied, instead "
        "of going on without it",
    )
    group.add_argument("--min-updater", default="0.1.0", metavar="VERSION")
    group.add_argument(
        "--floor-seq",
        type=common.SEQ,
        default=0,
        metavar="N",
        help="once installed, never go below this seq again",
    )


def _kinds(text: str) -> frozenset[str]:
    from updaterd.release.losses import KINDS

    return _of(KINDS, text)


def _rights(text: str) -> frozenset[str]:
    from updaterd.core.special import KINDS

    return _of(KINDS, text)


def _of(known: Iterable[str], text: str) -> frozenset[str]:
    found = frozenset(text.split(","))
    if not found <= set(known):
        raise argparse.ArgumentTypeError(f"kinds are {', '.join(known)}")
    return found


def _patch(text: str) -> tuple[str, Path]:
    version, equals, path = text.partition("=")
    if not (version and equals and path):
        raise argparse.ArgumentTypeError("VERSION=PATCH, as in 1.2.0=app.bsdiff")
    return version, Path(path)


def _tree(text: str) -> tuple[str, Path]:
    platform, equals, path = text.partition("=")
    if not (platform and equals and path):
        raise argparse.ArgumentTypeError("PLATFORM=DIR, as in linux-aarch64=build/arm")
    return platform, Path(path)


def _trees(
    arguments: argparse.Namespace, workspace: "Workspace"
) -> list[tuple[str, Path]]:
    """Return each platform's directory; nothing, when the command makes no sense."""
    named = list(arguments.tree)
    if arguments.folder is not None:
        platform = arguments.platform or workspace.settings.platform
        named.insert(0, (platform, arguments.folder))
    wrong = ""
    if not named:
        wrong = "which directory is to be released? Name TREE, or --tree PLATFORM=DIR"
    elif arguments.platform and arguments.folder is None:
        wrong = "--platform is of TREE, and none is named"
    elif len({platform for platform, _ in named}) < len(named):
        wrong = "a platform has one directory: one is named twice"
    elif arguments.bsdiff and len(named) > 1:
        wrong = "--bsdiff goes with one directory: its platform is not said"
    if wrong:
        print(f"updaterd release: {wrong}", file=sys.stderr)
        return []
    return named


def _orders(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    trees: Sequence[tuple[str, Path]],
    channel: str | None = None,
) -> "list[Order]":
    from updaterd.release.publish import Order

    deltas = arguments.deltas
    return [
        Order(
            product=arguments.product,
            version=arguments.version,
            channel=channel,
            platform=platform,
            seq=arguments.seq,
            deltas=workspace.settings.deltas if deltas is None else deltas,
            patches=tuple(arguments.bsdiff),
            min_updater=arguments.min_updater,
            floor_seq=arguments.floor_seq,
            drop=arguments.drop,
            carry=arguments.carry,
            outside_links=arguments.outside_links,
            strict_names=arguments.strict_names,
            strict=arguments.strict,
        )
        for platform, _ in trees
    ]


def _make(
    workspace: "Workspace",
    trees: Sequence[tuple[str, Path]],
    orders: "Sequence[Order]",
) -> "list[Built | Added]":
    """Build what is to be built, after all of it was looked at."""
    from updaterd.release import publish

    now = common.clock()
    found = [
        publish.examine(workspace, root, order, now=now)
        for order, (_, root) in zip(orders, trees, strict=True)
    ]
    names = ", ".join(order.platform for order in orders)
    with common.Bar(f"{orders[0].product} {orders[0].version} ({names})") as bar:
        return [
            each
            if isinstance(each, publish.Added)
            else publish.build_planned(workspace, each, progress=bar)
            for each in found
        ]


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


def _answer(arguments: argparse.Namespace, every: "Sequence[Added]") -> None:
    """Show what there is now, to people and to programs."""
    for each in every:
        _show(each)
    first = every[0].manifest
    common.answer(
        arguments,
        product=first.product,
        version=first.version,
        seq=first.seq,
        platforms={
            each.manifest.platform: {
                "fresh": each.fresh,
                "files": len(each.manifest.files),
                "full": each.manifest.full.length,
                "deltas": {
                    edge.from_version: edge.length
                    for edge in each.manifest.deltas
                    if edge.to_version == first.version
                },
                "skipped": each.skipped,
                "notes": each.notes,
            }
            for each in every
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.cli.release.channel import told
    from updaterd.release import publish
    from updaterd.release.channels import steering

    workspace = common.open_workspace(arguments)
    common.check_feed(arguments, workspace)
    trees = _trees(arguments, workspace)
    if not trees:
        return EXIT_USAGE
    orders = _orders(arguments, workspace, trees, arguments.channel)
    wish = steering.Wish(
        version=arguments.version,
        permille=arguments.permille,
        window_s=arguments.window_s,
        urgency="critical" if arguments.critical else "normal",
        without=arguments.without,
    )
    publish.check_wish(workspace, orders, wish, now=common.clock())
    common.current(arguments, workspace)  # before hours of building
    made = _make(workspace, trees, orders)
    with workspace.locked():
        repository = common.current(arguments, workspace)
        catalog = publish.catalog_of(workspace, repository, arguments.product)
        every = [
            each
            if isinstance(each, publish.Added)
            else publish.enter(catalog, order, each)
            for order, each in zip(orders, made, strict=True)
        ]
        steered = steering.put(catalog, arguments.channel, wish)
        if steered.changed:
            catalog.point(steered.pointer)
        repository.commit()
    _answer(arguments, every)
    print(f"published in channel {arguments.channel}")
    told(arguments, steered)
    common.tell_feed(arguments, workspace, repository, steered.pointer)
    return 0


def run_add(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.release import publish

    workspace = common.open_workspace(arguments)
    trees = _trees(arguments, workspace)
    if not trees:
        return EXIT_USAGE
    orders = _orders(arguments, workspace, trees)
    made = _make(workspace, trees, orders)
    every = [each for each in made if isinstance(each, publish.Added)]
    if len(every) < len(made):
        with workspace.locked():
            repository = common.current(arguments, workspace)
            catalog = publish.catalog_of(workspace, repository, arguments.product)
            every = [
                each
                if isinstance(each, publish.Added)
                else publish.enter(catalog, order, each)
                for order, each in zip(orders, made, strict=True)
            ]
            repository.commit()
        print("no channel offers what is new yet: `updaterd release publish`")
    _answer(arguments, every)
    return 0
