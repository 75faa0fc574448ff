"""Arguments that several commands share, and how they become settings."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from updaterd.core.settings import Settings


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Declare where the machine's configuration and directories are."""
    group = parser.add_argument_group("where things are")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: updaterd.toml in $CONFIGURATION_DIRECTORY, "
        "/etc/updaterd or the user's configuration directory)",
    )
    for name, what in (
        ("state", "database and trust"),
        ("cache", "partial downloads"),
        ("runtime", "status.json and the lock"),
    ):
        group.add_argument(
            f"--{name}-dir",
            type=Path,
            metavar="DIR",
            help=f"{what} (default: ${name.upper()}_DIRECTORY, then the platform's)",
        )
    group.add_argument(
        "--demo",
        action="store_true",
        help="accept a repository of the demo profile, whose keys protect nothing",
    )


def settings_from(arguments: argparse.Namespace) -> "Settings":
    """Return the settings that the arguments lead to.

    Raises:
        BrokenError: no configuration, or one that cannot be used.
    """
    from updaterd import config

    return config.load(
        arguments.config,
        state=arguments.state_dir,
        cache=arguments.cache_dir,
        runtime=arguments.runtime_dir,
        demo=arguments.demo,
    )
