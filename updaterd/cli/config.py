"""`updaterd config check`: is the configuration right?"""

import argparse
from pathlib import Path

from updaterd.cli.common import add_machine_options, settings_from


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="read it as the daemon would and name every mistake",
        description="Reads the configuration as the daemon would, with conf.d/*.toml, "
        "and looks at what it names on this machine. Exit code 0: it can be used.",
    )
    add_machine_options(check)


def run(arguments: argparse.Namespace) -> int:
    """Read the configuration and print what it means.

    Raises:
        ConfigError: what it names cannot work on this machine.
    """
    from updaterd import net
    from updaterd.config import ConfigError

    settings = settings_from(arguments)
    for url in (settings.feed.url, settings.trust.repository, *settings.trust.mirrors):
        net.require_secure(url)
    mistakes = []
    if not Path(settings.trust.root).is_file():
        mistakes.append(f"trust.root: {settings.trust.root} is not a readable file")
    mistakes.extend(
        f"products.{product.name}.health.command must start with an absolute path"
        for product in settings.products.values()
        if product.health.command and not product.health.command[0].startswith("/")
    )
    if mistakes:
        raise ConfigError(f"{settings.directories.config} cannot work here", mistakes)
    print(f"{settings.directories.config}: good")
    print(f"  feed        {settings.feed.url}")
    print(f"  repository  {settings.trust.repository}")
    for name, product in sorted(settings.products.items()):
        checks = "with" if product.health.command or product.health.url else "WITHOUT"
        print(f"  {name:<11} {product.root} ({product.channel}), {checks} health check")
    for kind in ("state", "cache", "runtime"):
        print(f"  {kind:<11} {getattr(settings.directories, kind)}")
    return 0
