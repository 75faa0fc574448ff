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

    Raises:
        ConfigError: a root that others could write.
        BrokenError: the daemon has no user, or the files cannot be written or applied.

    Power cut: each file is whole, old or new; running it again completes them.
    """
    from updaterd import durable
    from updaterd.config import ConfigError
    from updaterd.core.grants import grants
    from updaterd.errors import BrokenError

    unit = arguments.unit
    user = unit.removesuffix(".service").replace("@", "-")
    settings = settings_from(arguments)
    found = grants(settings.products.values(), user=user, unit=unit)
    if mistakes := _unsafe_roots(settings):
        raise ConfigError(f"{settings.directories.config} cannot work here", mistakes)
    if not arguments.write:
        for grant in found:
            print(f"# {grant.path}\n{grant.text}")
        return 0
    _require_user(user)
    for grant in found:
        path = Path(grant.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_file(path, grant.text.encode(), mode=0o644)
        except OSError as error:
            raise BrokenError(
                f"cannot write {path}: {error.strerror}",
                means="the daemon may do no more than before",
                do="run it as root",
                code="not_granted",
            ) from error
        print(f"wrote {path}")
    _apply("systemd-tmpfiles", "--create", str(found[1].path))
    _apply("systemctl", "daemon-reload")
    print(f"applied; now: systemctl restart {unit}")
    return 0


def _require_user(user: str) -> None:
    """Check that there is somebody to grant it to.

    Raises:
        BrokenError: there is not.
    """
    import pwd

    from updaterd.errors import BrokenError

    try:
        pwd.getpwnam(user)
    except KeyError:
        raise BrokenError(
            f"there is no user {user!r:.60}",
            means="nothing was written: the grants are for that user",
            do="install updaterd's package, or for an instance: "
            f"echo 'u {user} - \"updaterd\" /var/lib/{user}' | systemd-sysusers -",
            code="no_such_user",
        ) from None


def _apply(tool: str, *words: str) -> None:
    """Run what applies a grant that is written.

    Raises:
        BrokenError: it could not.
    """
    from updaterd.errors import BrokenError
    from updaterd.install.process import run

    ran = run([f"/usr/bin/{tool}", *words], timeout_s=60.0)
    if ran.code != 0:
        command = " ".join((tool, *words))
        raise BrokenError(
            f"`{command}`: {ran}",
            means="the files are written and not applied",
            do=f"run `{command}` by hand",
            code="not_granted",
        )


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
    mistakes.extend(_unsafe_roots(settings))
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


def _unsafe_roots(settings: "Settings") -> list[str]:
    """Return which products' roots others could write or put another in place of."""
    from updaterd import ownership, roots

    trusted = ownership.owners(settings.directories.state)
    mistakes = []
    for product in settings.products.values():
        try:
            roots.check(product, trusted)
        except roots.UnsafeRootError as error:
            mistakes.append(error.what)
    return mistakes


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
