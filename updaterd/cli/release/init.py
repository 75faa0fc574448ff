# SPDX-License-Identifier: Apache-2.0
"""`updaterd release init`: a new repository with its keys."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import opening, options, output, passphrases
from updaterd.core import layout

if TYPE_CHECKING:
    from updaterd.release.workspace import Workspace

MORE = """\
profiles:
  demo  keys lie open beside the repository; only `updaterd --demo` accepts it
  prod  key files are encrypted (scrypt, AES-256); move root-1, root-2 and root-3
        to separate offline places afterwards: docs/publisher.md
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    parser = options.command(
        commands, "init", run, "make a repository, its keys and its first root", MORE
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help="folder to make: keys, settings and public/",
    )
    parser.add_argument(
        "--profile",
        choices=("demo", "prod"),
        default="prod",
        help="demo or prod, see below (default: prod)",
    )
    parser.add_argument(
        "--product",
        action="append",
        default=[],
        metavar="NAME",
        help="product of the repository; may be repeated",
    )
    parser.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME",
        help="channel of every product; may be repeated (default: stable)",
    )
    parser.add_argument(
        "--critical",
        action="append",
        default=[],
        metavar="NAME",
        help="product whose releases need two keys' signatures; may be repeated",
    )
    parser.add_argument(
        "--platform",
        metavar="NAME",
        help="default platform of releases (default: this machine's)",
    )
    parser.add_argument("--feed", metavar="URL", help="feed to announce to")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="its publishing token"
    )
    parser.add_argument(
        "--served-at",
        metavar="URL",
        help="address that the world finds public/ at; each publication is compared "
        "with what it serves (default: /repo beside --feed)",
    )
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="copy each publication there: a directory, s3://BUCKET/PREFIX, gs://... "
        "or az://...; may be repeated",
    )
    options.add_passphrase(parser)


def _check_there(space: "Workspace", products: list[str], channels: list[str]) -> None:
    from updaterd.errors import BrokenError

    roles = opening.published(space).roles
    lacking = [
        f"add-product {name}"
        for name in products
        if layout.releases_role(name) not in roles
    ] or [
        f"add-channel {name} {channel}"
        for name in products
        for channel in channels
        if layout.channel_role(name, channel) not in roles
    ]
    if lacking:
        raise BrokenError(
            f"{space.folder} already is a repository, without what was asked for",
            means="it was left as it is",
            do=" and ".join(f"`updaterd release keys {change}`" for change in lacking),
            code="workspace_exists",
        )


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.release import workspace
    from updaterd.release.keychange import delegation

    settings = workspace.Settings(
        profile=arguments.profile,
        platform=arguments.platform or workspace.this_platform(),
        feed=arguments.feed,
        served_at=arguments.served_at,
        to=tuple(
            address if "://" in address else str(Path(address).absolute())
            for address in arguments.to
        ),
        token_file=arguments.token_file and str(arguments.token_file.absolute()),
    )
    products = list(dict.fromkeys([*arguments.product, *arguments.critical]))
    channels = arguments.channel or ["stable"]
    folder = arguments.folder
    workspace.create(folder, settings)
    space = workspace.Workspace(
        folder, passphrases.passphrase(arguments), passphrases.pin(arguments)
    )
    with space.locked():
        delegation.establish(
            space,
            products,
            channels,
            opening.clock(),
            critical=arguments.critical,
        )
    _check_there(space, products, channels)
    root = space.metadata / layout.role_file("root", 1)
    output.answer(
        arguments,
        public=str(space.public),
        root=str(root),
        keys=str(folder / "keys"),
        profile=arguments.profile,
    )
    print(f"repository: {space.public} (serve it as /repo/)")
    print(f"root for machines: {root}")
    if arguments.profile == "prod":
        print(f"keys: {folder / 'keys'}; take root-*.pem offline (see publisher.md)")
    else:
        print(f"keys: {folder / 'keys'} (demo: they protect nothing)")
    return 0
