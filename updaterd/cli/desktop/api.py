# SPDX-License-Identifier: Apache-2.0
"""`updaterd api`: answer applications over Varlink, while there are any."""

import argparse
import asyncio
from functools import partial
from pathlib import Path

from updaterd import config
from updaterd.cli.parts.options import (
    add_machine_options,
    directories_from,
    settings_from,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="where to listen, when systemd does not hand over a socket (default: "
        "io.updaterd in the runtime directory)",
    )
    parser.epilog = (
        "updaterd-api.socket starts it with the first application that connects. The\n"
        "interface is io.updaterd.Updater: `varlinkctl introspect "
        "/run/updaterd/io.updaterd`."
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer until nobody has been connected for a while."""
    from updaterd.api import polkit, process
    from updaterd.api.methods import World
    from updaterd.clocks import wall_clock

    directories = directories_from(arguments)
    path = arguments.socket or Path(directories.runtime) / process.SOCKET
    options: list[str] = ["--demo"] if arguments.demo else []
    for name, value in (
        ("config", directories.config),
        ("state-dir", directories.state),
        ("cache-dir", directories.cache),
        ("runtime-dir", directories.runtime),
    ):
        options += [f"--{name}", str(value)]
    action = polkit.action_of(config.system_name(Path(directories.config)))
    world = World(
        load=lambda: settings_from(arguments),
        now=wall_clock,
        polkit=partial(polkit.allows, action=action),
        arguments=tuple(options),
    )
    asyncio.run(process.Listener(world).run(process.listening(path)))
    return 0
