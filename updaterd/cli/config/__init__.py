# SPDX-License-Identifier: Apache-2.0
"""`updaterd config`: is it right, and what must the machine grant for it?"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updaterd.cli import EXIT_ERROR
from updaterd.cli.parts.options import (
    add_machine_options,
    directories_from,
    settings_from,
)

if TYPE_CHECKING:
    from updaterd.core.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="would the daemon work with it on this machine?",
        description="Reads the configuration as the daemon would, with conf.d/*.toml, "
        "and tests all of it that can be tested without a change: as the daemon's "
        "user, which needs root. Exit code 0: it can work.",
    )
    check.add_argument(
        "--offline", action="store_true", help="do not connect to any server"
    )
    check.add_argument(
        "--settings",
        action="store_true",
        help="only the settings and the files that they name, nothing of the machine; "
        "`systemctl reload` asks this",
    )
    check.add_argument(
        "--as-is",
        action="store_true",
        help="check as the user who runs this command, even as root",
    )
    check.add_argument("--json", action="store_true", help="findings for scripts")
    check.add_argument(
        "--unit",
        metavar="UNIT",
        help="the daemon's unit (default: the one that has this configuration)",
    )
    check.add_argument(
        "--user", metavar="NAME", help="the daemon's user (default: its unit's)"
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
        metavar="UNIT",
        help="the daemon's unit (default: the one that has this configuration, "
        "updaterd.service or updaterd@NAME.service)",
    )
    add_machine_options(grant)
    show = actions.add_parser(
        "show",
        help="what does it say, and which file says it?",
        description="Prints each value, and the file that says it; and the files "
        "that are read, from the weakest to the strongest. What a header holds is not "
        "printed. Defaults are in updaterd.toml's documentation.",
    )
    show.add_argument(
        "--json", action="store_true", help="values and files, for scripts"
    )
    add_machine_options(show)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    if arguments.action == "show":
        from updaterd.cli.config import show

        return show.show(arguments)
    return _grant(arguments) if arguments.action == "grant" else check(arguments)


def _grant(arguments: argparse.Namespace) -> int:
    """Print or write what the machine must grant the daemon.

    Raises:
        ConfigError: a root that others could write, or a unit that is not there.
        BrokenError: the daemon has no user, or the files cannot be written or applied.

    Power cut: each file is whole, old or new; running it again completes them.
    """
    from updaterd import durable
    from updaterd.cli.config import subject
    from updaterd.cli.config.machine import unsafe_roots
    from updaterd.config import ConfigError
    from updaterd.core.grants import UNIT, grants
    from updaterd.errors import BrokenError
    from updaterd.install import unit_files

    unit = arguments.unit or subject.unit_of(directories_from(arguments)) or UNIT
    user = unit.removesuffix(".service").replace("@", "-")
    settings = settings_from(arguments)
    files = grants(settings.products.values(), user=user, unit=unit)
    if mistakes := unsafe_roots(settings) + unit_files.faults(settings):
        raise ConfigError(f"{settings.directories.config} cannot work here", mistakes)
    if not arguments.write:
        for grant in files:
            print(f"# {grant.path}\n{grant.text}")
        return 0
    _require_user(user)
    for grant in files:
        path = Path(grant.path)
        try:
            durable.make_dir(path.parent)
            durable.write_file(path, grant.text.encode(), mode=0o644)
        except OSError as error:
            raise BrokenError(
                f"cannot write {path}: {error.strerror}",
                means="the daemon may do no more than before",
                do="run it as root",
                code="not_granted",
            ) from error
        print(f"wrote {path}")
    _apply("systemd-tmpfiles", "--create", str(files[1].path))
    if os.path.isdir("/run/systemd/system"):  # not while an image is built
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
    """Look at everything that can be looked at, as the daemon's user; print it.

    Raises:
        ConfigError: it cannot work on this machine; with every finding.
    """
    import json

    from updaterd.cli.config import show, subject
    from updaterd.config import ConfigError

    wish = subject.Wish(
        unit=arguments.unit,
        user=arguments.user,
        settings_only=arguments.settings,
        offline=arguments.offline,
        as_is=arguments.as_is,
    )
    report = subject.examine(arguments, wish)
    if arguments.json:
        print(json.dumps({"schema": 1, **report}))
        return EXIT_ERROR if report["findings"] else 0
    if report["findings"]:
        lines = [
            ". ".join(
                part.rstrip(".")
                for part in (show.with_file(arguments, finding["what"]), finding["do"])
                if part
            )
            for finding in report["findings"]
        ]
        as_user = f" for the user {report['user']}" if report["user"] else ""
        where = directories_from(arguments).config
        raise ConfigError(f"{where} cannot work here{as_user}", lines)
    _print_good(settings_from(arguments), report)
    for line in show.files(arguments):
        print(f"  read        {line}")
    return 0


def _print_good(settings: "Settings", report: dict[str, Any]) -> None:
    print(f"{settings.directories.config}: good")
    print(f"  feed        {settings.feed.url}")
    print(f"  repository  {settings.trust.repository}")
    for name, product in sorted(settings.products.items()):
        checks = "with" if product.health.checks else "WITHOUT"
        print(f"  {name:<11} {product.root} ({product.channel}), {checks} health check")
    for note in report["notes"]:
        print(f"  note: {note}")
    if not settings.products:
        print("  no product is configured: nothing will be installed")
    for kind in ("state", "cache", "runtime"):
        print(f"  {kind:<11} {getattr(settings.directories, kind)}")
    cage = report.get("cage")
    if cage is not None:
        print(f"  cage        {cage['layers']}")
        for warning in cage["missing"]:
            print(f"  warning: {warning}")
