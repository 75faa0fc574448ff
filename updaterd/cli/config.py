"""`updaterd config`: is it right, and what must the machine grant for it?"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.common import add_machine_options, settings_from

if TYPE_CHECKING:
    from updaterd.core.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="read it as the daemon would and name every mistake",
        description="Reads the configuration as the daemon would, with conf.d/*.toml, "
        "and looks at what it names on this machine. Exit code 0: it can be used.",
    )
    check.add_argument(
        "--settings",
        action="store_true",
        help="only what the daemon itself would refuse; `systemctl reload` asks this",
    )
    add_machine_options(check)
    grant = actions.add_parser(
        "grant",
        help="what root must write so that the daemon may do its work",
        description="The daemon is not root. Prints the polkit rule (restart the "
        "configured units), the folders (tmpfiles) and the unit's drop-in (write only "
        "below the products' roots) that let it do what the configuration says, and "
        "nothing more. Run it again when products, roots or units change.",
    )
    grant.add_argument(
        "--write", action="store_true", help="write the files and apply them (as root)"
    )
    grant.add_argument(
        "--unit",
        default="updaterd.service",
        metavar="UNIT",
        help="the daemon's unit, for instances: updaterd@NAME.service",
    )
    add_machine_options(grant)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    return _grant(arguments) if arguments.action == "grant" else check(arguments)


def _grant(arguments: argparse.Namespace) -> int:
    """Print or write what the machine must grant the daemon.

    Power cut: each file is whole, old or new; running it again completes them.
    """
    import subprocess

    from updaterd import durable
    from updaterd.core.grants import grants

    unit = arguments.unit
    user = unit.removesuffix(".service").replace("@", "-")
    found = grants(settings_from(arguments).products.values(), user=user, unit=unit)
    for grant in found:
        if not arguments.write:
            print(f"# {grant.path}\n{grant.text}")
            continue
        path = Path(grant.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(path, grant.text.encode(), mode=0o644)
        print(f"wrote {path}")
    if arguments.write:
        folders = str(found[1].path)
        create = ["/usr/bin/systemd-tmpfiles", "--create", folders]
        subprocess.run(create, check=True)  # noqa: S603 # a path of ours
        subprocess.run(["/usr/bin/systemctl", "daemon-reload"], check=True)
        print(f"applied; now: systemctl restart {unit}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Read the configuration and print what it means.

    Raises:
        ConfigError: what it names cannot work on this machine.
        BrokenError: the same: a time zone, an address.
    """
    from updaterd import net
    from updaterd.config import ConfigError
    from updaterd.core import schedule
    from updaterd.errors import BrokenError
    from updaterd.pipeline.services import zones

    settings = settings_from(arguments)
    mistakes: list[str] = []
    for key, url in (
        ("feed.url", settings.feed.url),
        ("trust.repository", settings.trust.repository),
        *(("trust.mirrors", mirror) for mirror in settings.trust.mirrors),
    ):
        try:
            net.require_secure(url)
        except BrokenError as error:
            mistakes.append(f"{key}: {error}")
    if settings.schedule.window is not None:
        for window in schedule.parse_window(settings.schedule.window):
            zones(window.zone)
    network = settings.feed.network
    mistakes.extend(
        f"feed.{key}: {path} is not a readable file"
        for key, path in (
            ("ca_file", network.ca_file),
            ("headers_file", network.headers_file),
        )
        if path is not None and not os.access(path, os.R_OK)
    )
    mistakes.extend(_proxy_mistakes(settings))
    if not Path(settings.trust.root).is_file():
        mistakes.append(f"trust.root: {settings.trust.root} is not a readable file")
    mistakes.extend(
        f"products.{product.name}.health.command must start with an absolute path"
        for product in settings.products.values()
        if product.health.command and not product.health.command[0].startswith("/")
    )
    mistakes.extend(_unsafe_commands(settings))
    if mistakes:
        raise ConfigError(f"{settings.directories.config} cannot work here", mistakes)
    _print_good(settings)
    return 0


def _print_good(settings: "Settings") -> None:
    print(f"{settings.directories.config}: good")
    print(f"  feed        {settings.feed.url}")
    print(f"  repository  {settings.trust.repository}")
    for name, product in sorted(settings.products.items()):
        checks = "with" if product.health.command or product.health.url else "WITHOUT"
        print(f"  {name:<11} {product.root} ({product.channel}), {checks} health check")
    for reason in _ignored_proxies(settings):
        print(f"  note: {reason}")
    if not settings.products:
        print("  no product is configured: nothing will be installed")
    for kind in ("state", "cache", "runtime"):
        print(f"  {kind:<11} {getattr(settings.directories, kind)}")


def _unsafe_commands(settings: "Settings") -> list[str]:
    """Return which hooks and health commands others could change."""
    from updaterd import ownership
    from updaterd.install import commands

    trusted = ownership.owners(settings.directories.state)
    return [
        f"{what}: {said}"
        for product in settings.products.values()
        for what, argv in commands.configured(product)
        if (said := commands.fault(argv, trusted))
    ]


def _proxy_mistakes(settings: "Settings") -> list[str]:
    from updaterd import net

    given = {
        "feed": settings.feed.network.proxy,
        "trust": settings.trust.network.proxy,
    }
    return [
        f"{table}.proxy {why}"
        for table, proxy in given.items()
        if proxy is not None and (why := net.proxy_fault(proxy))
    ]


def _ignored_proxies(settings: "Settings") -> tuple[str, ...]:
    """Return what of this environment's proxies is left out, where it counts."""
    from updaterd import net

    given = settings.feed.network.proxy, settings.trust.network.proxy
    return net.environment_proxies().ignored if None in given else ()
