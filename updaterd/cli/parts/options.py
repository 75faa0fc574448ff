# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands share, and how they become settings."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.clocks import random_draw, wall_clock

if TYPE_CHECKING:
    from updaterd.core.settings import Directories, Settings

__all__ = [
    "SLOW_LOOPS",
    "add_machine_options",
    "chosen_products",
    "config_of",
    "directories_from",
    "has_compiled_loops",
    "load_pipeline",
    "nudge_daemon",
    "random_draw",
    "settings_from",
    "wall_clock",
]

SLOW_LOOPS = (
    "the compiled module is missing: applying a delta takes about 17 times the CPU; "
    "install updaterd from a package, or where there is a C compiler"
)


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
    group.add_argument(
        "--daemon",
        metavar="NAME",
        help="a further daemon on this machine, updaterd@NAME, such as a kit's, which "
        "has its product's name (default: the product's, if there is one)",
    )
    for name, content in (
        ("state", "database and trust"),
        ("cache", "partial downloads"),
        ("runtime", "status.json and the lock"),
    ):
        group.add_argument(
            f"--{name}-dir",
            type=Path,
            metavar="DIR",
            help=f"{content} (default: ${name.upper()}_DIRECTORY, then the platform's)",
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
        config_of(arguments),
        state=arguments.state_dir,
        cache=arguments.cache_dir,
        runtime=arguments.runtime_dir,
        demo=arguments.demo,
    )


def config_of(arguments: argparse.Namespace) -> Path | None:
    """Return the configuration that the arguments name; None: the first there is.

    Raises:
        BrokenError: there is no daemon of the name.
    """
    from updaterd import config

    product = getattr(arguments, "product", None)
    return config.chosen(
        arguments.config,
        daemon=arguments.daemon,
        product=product if isinstance(product, str) else None,
    )


def directories_from(arguments: argparse.Namespace) -> "Directories":
    """Return where the daemon that the arguments mean keeps its things."""
    from updaterd import config

    return config.directories(
        config_of(arguments),
        state=arguments.state_dir,
        cache=arguments.cache_dir,
        runtime=arguments.runtime_dir,
    )


def has_compiled_loops(package: Path | None = None) -> bool:
    """Tell whether the loops that apply deltas are here compiled, without loading them.

    Args:
        package: where updaterd is; None: this one.
    """
    package = package or Path(__file__).resolve().parents[2]
    return any((package / "artifact").glob("_native.*.so"))


def load_pipeline() -> None:
    """Load what follows a repository, with no more of python-tuf than that needs.

    To be called before anything imports `updaterd.pipeline` or `updaterd.trust`, by
    commands that sign nothing.
    """
    from updaterd.trust import lean

    lean.load()


def chosen_products(settings: "Settings", named: str | None) -> list[str]:
    """Return the named product, or all.

    Raises:
        BrokenError: the configuration has no such product.
    """
    if named is None:
        return sorted(settings.products)
    if named not in settings.products:
        from updaterd.errors import BrokenError

        known = ", ".join(sorted(settings.products)) or "none"
        raise BrokenError(
            f"no product {named!r:.80} in {settings.directories.config}",
            do=f"configured products: {known}",
            code="no_such_product",
        )
    return [named]


def nudge_daemon(settings: "Settings") -> bool:
    """Tell a running daemon to look again; return whether there was one to tell."""
    from updaterd.system import wake

    return wake.nudge(Path(settings.directories.runtime))


def version(text: str) -> str:
    """Read a release's label.

    Raises:
        argparse.ArgumentTypeError: it can be none.
    """
    from updaterd.core.names import check_version
    from updaterd.errors import MalformedError

    try:
        return check_version(text)
    except MalformedError as error:
        raise argparse.ArgumentTypeError(error.cause) from None
