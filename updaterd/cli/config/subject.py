# SPDX-License-Identifier: Apache-2.0
"""Who the daemon would be here, and the checks made in its place.

What root may read and write says nothing about the daemon. Where root asks, a child
process becomes the daemon's user and looks; what it found comes back as JSON.
"""

import argparse
import json
import os
import pwd
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from updaterd import config
from updaterd.cli.config import machine, network, settings
from updaterd.cli.config.finding import Finding, of_error
from updaterd.cli.parts.options import directories_from
from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Directories
from updaterd.errors import UpdaterError
from updaterd.install.restart_systemd import Systemd

Report = dict[str, Any]
_SESSION = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person wants to know.

    Attributes:
        unit: the daemon's; None for the one that has the configuration.
        user: the daemon's; None for the unit's.
        settings_only: nothing of the machine.
        offline: no server is asked.
        as_is: this process's user is the daemon's.
    """

    unit: str | None = None
    user: str | None = None
    settings_only: bool = False
    offline: bool = False
    as_is: bool = False


def examine(arguments: argparse.Namespace, wish: Wish) -> Report:
    """Return what was found: `user`, `findings`, `notes`; of a machine also `cage`."""
    where = directories_from(arguments)
    unit = wish.unit or unit_of(where)
    manager = Systemd((os.environ.get("UPDATERD_SYSTEMCTL", "systemctl"),))
    known: dict[str, str] = {}
    if unit and not wish.settings_only:
        known = manager.properties(unit, machine.UNIT_PROPERTIES)
    if known.get("LoadState") != "loaded":
        known = {}
    place = _Place(
        where=where,
        demo=arguments.demo,
        wish=wish,
        unit=known,
        manager=manager,
    )
    user = _user(wish, known, where)
    if isinstance(user, Finding):
        return {"user": "", "findings": [user.document()], "notes": []}
    own_uid = os.geteuid()
    if user is None or wish.as_is or user.pw_uid == own_uid:
        return {"user": "", **place.look()}
    if own_uid != 0:  # what this user may do says nothing
        report = replace(place, wish=replace(wish, settings_only=True)).look()
        note = f"root can test as {user.pw_name}, the daemon's user; only the settings"
        return {"user": "", **report, "notes": [*report["notes"], f"{note} were"]}
    return {"user": user.pw_name, **_as(user, place.look)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What is looked at."""

    where: Directories
    demo: bool
    wish: Wish
    unit: dict[str, str]
    manager: Systemd

    def look(self) -> Report:
        where = self.where
        try:
            configuration = config.load(
                Path(where.config),
                state=Path(where.state),
                cache=Path(where.cache),
                runtime=Path(where.runtime),
                # a reload does not know how the daemon was started
                demo=self.demo or self.wish.settings_only,
            )
        except UpdaterError as error:
            return {"findings": [of_error("", error).document()], "notes": []}
        findings = settings.findings(configuration)
        wish = self.wish
        if not findings and not (wish.offline or wish.settings_only):
            findings += network.findings(configuration)
        if not wish.settings_only:
            findings += machine.findings(
                configuration, manager=self.manager, unit=self.unit
            )
        notes = [*settings.notes(configuration)]
        if not wish.settings_only:
            notes += machine.notes(configuration)
        report: Report = {
            "findings": [finding.document() for finding in findings],
            "notes": list(notes),
        }
        if not wish.settings_only:
            report["cage"] = machine.cage()
        return report


def unit_of(where: Directories) -> str:
    """Return the unit that runs on this configuration; "" for none of the system's."""
    name = config.system_name(Path(where.config))
    first, dash, rest = name.partition("-")
    return f"{first}@{rest}.service" if dash else f"{first}.service" if first else ""


def _user(
    wish: Wish, unit: dict[str, str], where: Directories
) -> pwd.struct_passwd | Finding | None:
    """Return the daemon's user; None where nothing tells another than this one."""
    name = wish.user or unit.get("User") or config.system_name(Path(where.config))
    if not name:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        if not wish.user and not unit:
            return None  # no service here: whoever types is who runs it
        return Finding(
            code="config",
            cause=f"the daemon's user {name!r:.80} does not exist",
            do="install the package again, or make the user (systemd-sysusers)",
        )


def _as(user: pwd.struct_passwd, look: Callable[[], Report]) -> Report:
    """Return what a child process finds as `user`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _become(user)
            report = look()
        except BaseException:  # noqa: BLE001 - told by who waits
            last_line = traceback.format_exc().splitlines()[-1]
            report = {"findings": [_broken(last_line).document()], "notes": []}
        with os.fdopen(writer, "wb") as out:
            out.write(json.dumps(report).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        raw = answer.read()
    os.waitpid(child, 0)
    try:
        report = json.loads(raw)
    except ValueError:
        report = {"findings": [_broken("it died").document()], "notes": []}
    return dict(report)


def _become(user: pwd.struct_passwd) -> None:
    # away from root's terminal and folder: what this process runs is not root's
    os.setsid()
    os.chdir("/")
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    for name in _SESSION:  # of whoever typed this
        os.environ.pop(name, None)


def _broken(error_text: str) -> Finding:
    return Finding(
        code="error",
        cause=f"the check as the daemon's user could not be made: {error_text}",
        do="run it as that user",
    )
