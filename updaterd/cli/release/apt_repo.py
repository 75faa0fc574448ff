# SPDX-License-Identifier: Apache-2.0
"""`updaterd release apt-repo`: packages as apt fetches them."""

import argparse
import os
from pathlib import Path

from updaterd.cli.release.parts import opening, options


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    archive = options.command(
        commands,
        "apt-repo",
        run,
        "make an apt repository of updaterd's packages and of kits",
        "Writes pool/, dists/ and a source for machines, to be served as files.\n"
        "Signed by gpg. Run it again with more packages; what is there stays.\n",
        json=False,
    )
    archive.add_argument("folder", type=Path, metavar="DIR", help="the repository")
    archive.add_argument(
        "--deb",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help="packages to put in",
    )
    archive.add_argument(
        "--key", required=True, metavar="ID", help="gpg's key: a fingerprint or address"
    )
    archive.add_argument(
        "--url", required=True, metavar="ADDRESS", help="where it will be served"
    )
    archive.add_argument(
        "--origin", default="updaterd", metavar="NAME", help="whose it is"
    )
    archive.add_argument(
        "--suite", default="stable", metavar="NAME", help="its name (default: stable)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write it, and print where it is."""
    from updaterd.release.kits import apt

    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    when = float(text) if text.isdigit() else opening.clock().timestamp()
    archive = apt.Archive(
        origin=arguments.origin,
        suite=arguments.suite,
        key=arguments.key,
        url=arguments.url,
        when=when,
    )
    for path in apt.write(archive, arguments.deb, arguments.folder):
        print(path)
    print(f"a machine needs {arguments.folder / arguments.suite}.sources")
    return 0
