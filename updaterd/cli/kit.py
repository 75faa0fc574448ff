# SPDX-License-Identifier: Apache-2.0
"""`updaterd kit`: what the scripts of a kit's package do, in one place.

A kit brings files: a fragment of the configuration, the first root, units. `up` makes
an application of them, `down` takes it away again. Each step is one that a person could
type, and doing it twice is doing it once: a script that was killed is run again.
"""

import argparse
import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd import config
from updaterd.cli import EXIT_ERROR, EXIT_PENDING
from updaterd.errors import BrokenError

if TYPE_CHECKING:
    from updaterd.core.settings import Settings

_PACKAGED = "/usr/bin/updaterd"
_OWN = "/usr/lib/updaterd/"
_CARRIED = "release"
_CODE = "UPDATERD_ENROLL_CODE"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = actions.add_parser(
        "up",
        help="install what a kit is for, and keep it up to date",
        description="Grants its daemon what it needs, installs the product, from the "
        "kit if that carries it, and starts the daemon and the product's units. Where "
        "the product cannot be installed now, the daemon does it later.",
    )
    down = actions.add_parser(
        "down",
        help="take away what `up` made",
        description="Stops the daemon and the product's units, removes the product as "
        "`updaterd remove` does, and takes back what was granted.",
    )
    for action in (up, down):
        action.add_argument("name", metavar="NAME", help="the kit: its product's name")
    up.add_argument(
        "--enroll",
        metavar="CODE",
        default=os.environ.get(_CODE, ""),
        help="make the machine known to a closed server first, by a one-time code "
        f"(default: ${_CODE})",
    )
    down.add_argument(
        "--purge",
        action="store_true",
        help="forget, too, what its daemon knew: the journal, what was signed",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it.

    Raises:
        ConfigError: there is no such kit here.
    """
    file = config.chosen(None, daemon=arguments.name)
    settings = config.load(file)
    if arguments.name not in settings.products:
        raise config.ConfigError(
            f"the configuration of the daemon {arguments.name} has no product "
            f"{arguments.name}: {settings.directories.config}",
            do="is the kit's own fragment hidden by one of the same name? "
            "`updaterd config show --daemon NAME` says which files count",
        )
    kit = _Kit(arguments.name, settings)
    if arguments.action == "up":
        return kit.up(enroll=arguments.enroll)
    return kit.down(purge=arguments.purge)


class _Kit:
    """A kit's daemon and product on this machine, or of this person."""

    def __init__(self, name: str, settings: "Settings") -> None:
        self._name = name
        self._product = settings.products[name]
        self._where = settings.directories
        self._unit = f"updaterd@{name}.service"
        self._socket = f"updaterd-api@{name}.socket"
        self._is_system = bool(config.system_name(Path(self._where.config)))
        self._command = (
            [_PACKAGED]
            if sys.executable.startswith(_OWN)
            else [sys.executable, "-I", "-m", "updaterd"]
        )

    def up(self, *, enroll: str = "") -> int:
        """Make it work, after the code was used; return the exit code."""
        if self._is_system:
            self._make_folders()
            self._systemctl("daemon-reload")
            if code := self._updaterd("config", "grant", "--write", quiet=True):
                return code
        if enroll and self._updaterd("enroll", "-", typed=enroll):
            # not to the caller: a package that is half installed helps nobody
            print(
                f"the machine is not enrolled; later: updaterd enroll CODE "
                f"--daemon {self._name}"
            )
        if self._product.units and not self._has_manager():
            for unit in (self._unit, self._socket):
                self._systemctl("enable", unit)
            start = config.starting(Path(self._where.config))
            print(f"no systemd runs here: {self._name} is installed at `{start}`")
            return 0
        carried = self._carried()
        words = ["--from", str(carried)] if carried else []
        code = self._updaterd("update", self._name, "--now", *words)
        if code not in (0, EXIT_PENDING):
            print(
                f"{self._name} could not be installed now; its daemon tries again, and "
                f"`{self._typed()} status --daemon {self._name}` says how that goes"
            )
        self._systemctl("daemon-reload")
        for unit in (*self._product.units, self._unit):
            self._systemctl("enable", unit)
        self._systemctl("restart", self._unit)
        # for the application: postpone, wait, ask how it stands
        self._systemctl("enable", "--now", self._socket)
        # a release that was on disk before did not start them
        for unit in self._product.units if code == 0 else ():
            self._systemctl("start", unit)
        self._tell(code)
        return 0

    def _tell(self, code: int) -> None:
        """Say what came of it, and what to type now."""
        if not self._has_manager():
            start = config.starting(Path(self._where.config))
            print(f"no systemd to ask here: nothing was started; later: {start}")
        elif code == 0:
            print(
                f"{self._name} is in {self._product.root}, and {self._unit} keeps it "
                f"up to date\n  how it stands: {self._typed()} status --daemon "
                f"{self._name}"
            )
        elif code == EXIT_PENDING:
            print(
                f"{self._name} comes later; what it waits for: {self._typed()} why "
                f"{self._name}"
            )

    def _typed(self) -> str:
        """Return how a person calls updaterd: a shell may not look in ~/.local/bin."""
        if self._is_system or shutil.which("updaterd"):
            return "updaterd"
        return "~/.local/bin/updaterd"

    def down(self, *, purge: bool) -> int:
        """Take it away; return the exit code."""
        if self._is_system:
            self._make_folders()  # who deleted them by hand must get rid of it, too
        self._systemctl("disable", "--now", self._socket)
        self._systemctl("stop", f"updaterd-api@{self._name}.service")
        self._systemctl("disable", "--now", self._unit)
        for unit in self._product.units:  # `remove` stops them
            self._systemctl("disable", unit)
        for unit in sorted(self._brought() - {*self._product.units}):
            self._systemctl("disable", "--now", unit)
        if code := self._updaterd("remove", self._name, "--json", quiet=True):
            return code
        print(f"{self._name} is removed from {self._product.root}")
        # a kit that comes again is wanted again
        self._updaterd("unhold", self._name, quiet=True)
        with contextlib.suppress(OSError):  # others' things are in it
            os.rmdir(self._product.root)
        if self._is_system:
            self._take_back()
        self._forget(self._where.cache, self._where.runtime)
        if purge:
            self._forget(self._where.state)
        return 0

    def _brought(self) -> set[str]:
        """Return the units that the kit named, whatever the owner made of that.

        `up` enabled them; where the owner's `units` names others since, they would
        stay enabled, and run on from a tree that is gone.
        """
        import tomllib

        from updaterd.config.places import vendors

        units: set[str] = set()
        for folder in vendors(Path(self._where.config)):
            for path in folder.glob("*.toml"):
                with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                    document = tomllib.loads(path.read_text("utf-8"))
                    units |= {*document["products"][self._name]["units"]}
        return units

    def _carried(self) -> Path | None:
        """Return where the kit has a release, if it carries one."""
        from updaterd.config.places import FRAGMENTS, vendors

        for folder in vendors(Path(self._where.config)):
            # beside the kit's own; /run/NAME.conf.d lies in everybody's folder
            if folder.name == FRAGMENTS and (folder.parent / _CARRIED).is_dir():
                return folder.parent / _CARRIED
        return None

    def _make_folders(self) -> None:
        """Make the folders of the daemon's user, before a unit ever did.

        Raises:
            BrokenError: there is no such user, or root is refused.

        Power cut: some of them are there; the next call makes the rest.
        """
        user = self._unit.removesuffix(".service").replace("@", "-")
        try:
            known = pwd.getpwnam(user)
            for folder in (self._where.state, self._where.cache):
                if not os.path.lexists(folder):
                    os.mkdir(folder, 0o700)
                    os.chown(folder, known.pw_uid, known.pw_gid)
        except (OSError, KeyError) as error:
            raise BrokenError(
                f"cannot prepare the daemon of {self._name}: {error}",
                means="nothing was changed",
                do="run it as root, after `systemd-sysusers`",
                code="not_granted",
            ) from error

    def _take_back(self) -> None:
        """Delete what `config grant` wrote for this daemon.

        Power cut: some of it is there; the next `down` deletes the rest.
        """
        from updaterd import durable
        from updaterd.core.grants import grants

        user = self._unit.removesuffix(".service").replace("@", "-")
        for grant in grants([self._product], user=user, unit=self._unit):
            with contextlib.suppress(FileNotFoundError):
                durable.remove(Path(grant.path))
            # Only what is this unit's: polkit follows its rules.d, and no other
            # that is made later by that name.
            if grant.path.parent.name == f"{self._unit}.d":
                with contextlib.suppress(OSError):  # the owner wrote something there
                    os.rmdir(grant.path.parent)
        config_folder = Path(self._where.config).parent  # the unit made it
        for folder in (config_folder / "conf.d", config_folder):
            with contextlib.suppress(OSError):  # the owner wrote something there
                os.rmdir(folder)
        self._systemctl("daemon-reload")

    def _forget(self, *folders: object) -> None:
        """Delete folders of the daemon's own; what is mounted there stays.

        Power cut: part of it is there; the next call deletes the rest.
        """
        from updaterd.files import deletion

        for folder in folders:
            path = Path(str(folder))
            if os.path.lexists(path):
                for obstacle in deletion.delete_tree(path):
                    print(f"stays: {obstacle}", file=sys.stderr)

    def _updaterd(self, *words: str, quiet: bool = False, typed: str = "") -> int:
        """Run a command of ours, as a person would type it; return its exit code.

        A code is typed, for the list of processes is everybody's to read, and is in no
        environment: what is run later need not know it.
        """
        argv = [*self._command, *words, "--daemon", self._name]
        out = subprocess.DEVNULL if quiet else None
        own = {name: word for name, word in os.environ.items() if name != _CODE}
        sys.stdout.flush()
        try:
            return subprocess.run(  # noqa: S603 - ourselves
                argv, check=False, stdout=out, env=own, input=os.fsencode(typed) or None
            ).returncode
        except OSError as error:
            print(f"updaterd: {argv[0]}: {error.strerror}", file=sys.stderr)
            return EXIT_ERROR

    def _has_manager(self) -> bool:
        """Tell whether systemd runs, for the machine or for this person."""
        runs = os.path.isdir("/run/systemd/system")
        return runs and (self._is_system or "XDG_RUNTIME_DIR" in os.environ)

    def _systemctl(self, *words: str) -> None:
        """Ask systemd, where it runs; what it refuses is said, and goes on."""
        if not self._has_manager():
            # while an image is built, what starts at boot can be said already
            if not self._is_system or words[0] not in ("enable", "disable"):
                return
            words = tuple(word for word in words if word != "--now")
        argv = ["systemctl", *([] if self._is_system else ["--user"])]
        more = ["--no-ask-password", "--quiet"]
        subprocess.run([*argv, *more, *words], check=False)  # noqa: S603 - fixed words
