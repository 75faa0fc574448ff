# SPDX-License-Identifier: Apache-2.0
"""`updaterd release subject`: what an attestation of a release has to be about."""

import argparse
from pathlib import Path

from updaterd.cli.release.parts import files, options, output


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    subject = options.command(
        commands,
        "subject",
        run,
        "print what an attestation of a release has to be about",
        "Prints the SHA-256 of the tree's listing, and its name, as `sha256sum` does. "
        "A tool\nthat attests a file gets the listing itself: its SHA-256 is the "
        "same.\n\n"
        "  updaterd release subject build/ --listing acme.listing.json\n"
        "  cosign attest-blob acme.listing.json --type slsaprovenance1 ...\n",
    )
    subject.add_argument(
        "folder", type=Path, metavar="TREE", help="directory that holds the application"
    )
    subject.add_argument(
        "--name", metavar="NAME", help="of the subject (default: the directory's)"
    )
    subject.add_argument(
        "--listing", type=Path, metavar="FILE", help="write the listing to this file"
    )
    subject.add_argument(
        "--outside-links",
        action="store_true",
        help="the release will carry links that lead out of the tree",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from updaterd import durable
    from updaterd.core import manifest
    from updaterd.release import tree

    out = files.writable(arguments.listing) if arguments.listing else None
    surveyed = tree.survey(arguments.folder, outside_links=arguments.outside_links)
    digest = manifest.tree_id(surveyed.files)
    name = arguments.name or arguments.folder.resolve().name
    if out is not None:
        data = manifest.listing(surveyed.files)
        durable.write_file(out, data, mode=0o644)
    print(f"{digest}  {name}")
    output.answer(
        arguments, tree=digest, subject=[{"name": name, "digest": {"sha256": digest}}]
    )
    return 0
