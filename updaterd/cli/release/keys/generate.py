# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys generate`: a key file by itself, on any machine."""

import argparse
from pathlib import Path

from updaterd.cli.release.parts import (
    options,
    output,
    passphrases,
)


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    generate = options.command(
        verbs,
        "generate",
        run,
        "make a key file without a workspace, on any machine",
        "Writes FOLDER/NAME.pem (private, encrypted) and FOLDER/NAME.pub.json.\n",
    )
    generate.add_argument("name", metavar="NAME", help="name of the new key")
    generate.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to put the key (default: here)",
    )
    options.add_passphrase(generate)


def run(arguments: argparse.Namespace) -> int:
    """Make a key file."""
    from updaterd.release.keys.files import generate

    private, public = generate(
        arguments.folder, arguments.name, passphrases.passphrase(arguments)
    )
    print(f"private: {private}\npublic:  {public}")
    output.answer(arguments, private=str(private), public=str(public))
    return 0
