# SPDX-License-Identifier: Apache-2.0
"""`updaterd release appstream`: releases as software centres read them."""

import argparse
import sys

from updaterd.cli.release.parts import opening, options


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    appstream = options.command(
        commands,
        "appstream",
        run,
        "print the releases as AppStream's <releases>",
        "Install it as /usr/share/metainfo/releases/ID.releases.xml, where "
        "ID.metainfo.xml says\n"
        '<releases type="external"/>; or put it into that file.\n',
        json=False,
    )
    appstream.add_argument(
        "--product", required=True, metavar="NAME", help="the product"
    )
    appstream.add_argument(
        "--channel",
        metavar="NAME",
        help="only what this channel offered (default: every release)",
    )
    appstream.add_argument(
        "--last",
        type=options.number(1, 1000),
        default=20,
        metavar="N",
        help="so many, the newest (default: 20)",
    )
    options.add_workspace(appstream)


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from updaterd.release import appstream, difference, publish

    workspace = opening.workspace(arguments)
    repository = opening.published(workspace)
    catalog = publish.catalog_of(workspace, repository, arguments.product)
    history = catalog.offered(arguments.channel) if arguments.channel else None
    entries: dict[str, appstream.Entry] = {}
    for listed in catalog.listed():
        if listed.version in entries:
            continue
        if history is not None and not history.includes(listed.version):
            continue
        at = difference.moment(listed)
        if at is None:
            print(
                f"{listed.version} is left out: nobody wrote down when it came out",
                file=sys.stderr,
            )
            continue
        if len(entries) == arguments.last:
            break
        notes = catalog.manifest(listed).notes
        entries[listed.version] = appstream.Entry(
            version=listed.version, at=at, notes=notes
        )
    sys.stdout.write(appstream.document(entries.values()))
    return 0
