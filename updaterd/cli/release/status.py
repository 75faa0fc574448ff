# SPDX-License-Identifier: Apache-2.0
"""`updaterd release status`: roles, keys, expiries, channels, releases."""

import argparse
from itertools import groupby
from pathlib import Path

from updaterd.cli.release.parts import opening, options, output
from updaterd.cli.release.parts.rollouts import fleet
from updaterd.core import layout


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    status = options.command(
        commands,
        "status",
        run,
        "show roles, keys, expiries, channels, releases; or what machines reported",
    )
    group = status.add_argument_group("the fleet")
    group.add_argument(
        "--fleet",
        action="store_true",
        help="show what machines reported instead: how each release ended on them, and "
        "how long it took; needs a token with the scope fleet:read",
    )
    group.add_argument(
        "--watch", action="store_true", help="show it again every other second"
    )
    group.add_argument("--product", metavar="NAME", help="only this product")
    group.add_argument(
        "--limit", type=int, default=5, metavar="N", help="releases (default: 5)"
    )
    group.add_argument(
        "--feed",
        metavar="URL",
        help="address of /v1/events, or of /v1/fleet (default: release.toml)",
    )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="bearer token (default: release.toml, then $UPDATERD_FEED_TOKEN)",
    )
    group.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM with the server's own CA"
    )
    status.add_argument(
        "--notes",
        action="store_true",
        help="show the release notes of what channels offer, too",
    )
    options.add_workspace(status)


def run(arguments: argparse.Namespace) -> int:
    """Show how things stand."""
    from updaterd.release import publish
    from updaterd.release.keychange import change as keychange
    from updaterd.release.repository.catalog import products
    from updaterd.release.upkeep import expiry

    workspace = opening.workspace(arguments)
    if arguments.fleet or arguments.watch:
        return fleet.show(arguments, workspace)
    now = opening.clock()
    repository = opening.published(workspace)
    roles = expiry.report(workspace, repository, now)
    catalogs = {
        name: publish.catalog_of(workspace, repository, name)
        for name in products(repository)
    }
    output.answer(
        arguments,
        profile=workspace.settings.profile,
        roles=[
            {
                "name": role.name,
                "version": role.version,
                "expires": f"{role.expires:%Y-%m-%dT%H:%M:%SZ}",
                "days_left": round(role.days_left, 2),
                "threshold": role.threshold,
                "keys": role.keys,
                "keys_here": role.keys_here,
                "warning": role.warning,
            }
            for role in roles
        ],
        products={
            name: {
                "channels": [
                    catalog.pointer(channel).as_custom()
                    for channel in catalog.channels()
                ],
                "releases": [
                    {
                        "version": entry.version,
                        "seq": entry.seq,
                        "platform": entry.platform,
                        "published_at": entry.at or None,
                        "archived": layout.is_archive(entry.role),
                    }
                    for entry in catalog.listed()
                ],
            }
            for name, catalog in catalogs.items()
        },
    )
    print(f"{'role':<24} {'version':>7} {'days left':>9}  keys")
    for role in roles:
        keys = f"{role.threshold} of {', '.join(role.keys)} ({role.keys_here} here)"
        note = f"  ! {role.warning}" if role.warning else ""
        print(f"{role.name:<24} {role.version:>7} {role.days_left:>9.1f}  {keys}{note}")
    for entry in keychange.waiting(workspace):
        print(f"a change of keys waits: {entry.path}: {entry.missing}")
    for catalog in catalogs.values():
        for channel in catalog.channels():
            pointer = catalog.pointer(channel)
            output.show_channel(pointer)
            if arguments.notes:
                for offer in pointer.releases:
                    print(f"  {offer.version}:")
                    listed = catalog.require(offer.version)
                    output.show_release_notes(catalog.manifest(listed).notes)
    for name, catalog in catalogs.items():
        print(f"{name}: releases, newest first")
        for release, entries in groupby(
            catalog.listed(), lambda entry: (entry.version, entry.seq)
        ):
            print("  {} (seq {}): ".format(*release), end="")
            print(", ".join(sorted(entry.platform for entry in entries)))
    return 0
