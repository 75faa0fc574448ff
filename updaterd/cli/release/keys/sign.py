# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys sign`: sign an exported file, anywhere."""

import argparse
from pathlib import Path

from updaterd.cli.release.parts import (
    confirming,
    options,
    passphrases,
)


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    sign = options.command(verbs, "sign", run, "sign an exported file, anywhere")
    sign.add_argument(
        "file", type=Path, metavar="FILE", help="exported root.json or targets.json"
    )
    sign.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="NAME.pem",
        help="key file to sign with",
    )
    sign.add_argument("--yes", action="store_true", help="do not ask")
    options.add_passphrase(sign)


def run(arguments: argparse.Namespace) -> int:
    """Sign an exported file.

    Raises:
        BrokenError: nobody confirmed it, or the key has no say in it.
    """
    from updaterd.release.keychange import offline

    print("\n".join(offline.describe(arguments.file)))
    if not (arguments.yes or confirming.is_confirmed()):
        return 1
    offline.sign(arguments.file, arguments.key, passphrases.passphrase(arguments))
    print(f"signed {arguments.file} with {arguments.key.name}")
    return 0
