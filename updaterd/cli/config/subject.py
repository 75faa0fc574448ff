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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from updaterd import config
from updaterd.cli.common import directories_from
from updaterd.cli.config import machine, network, settings
from updaterd.cli.config.finding import Finding, of_error
from updaterd.core.settings import Directories
from updaterd.errors import UpdaterError
from updaterd.install.restart_systemd import Systemd

Report = dict[str, Any]
_SESSION = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
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


def examine(arguments: argparse.Namespace, asked: Asked) -> Report:
    """Return what was found: `user`, `findings`, `notes`; of a machine also `cage`."""
    where = directories_from(arguments)
    unit = asked.unit or _unit(where)
    manager = Systemd((os.environ.get("UPDATERD_SYSTEMCTL", "systemctl"),))
    known: dict[str, str] = {}
    if unit and not asked.settings_only:
        known = manager.properties(unit, machine.UNIT_PROPERTIES)
    if known.get("LoadState") != "loaded":
        known = {}
    place = _Place(
        where=where,
        demo=arguments.demo,
        asked=asked,
        unit=known,
        manager=manager,
    )
    found = _user(asked, known, where)
    if isinstance(found, Finding):
        return {"user": "", "findings": [found.document()], "notes": []}
    here = os.geteuid()
    if found is None or asked.as_is or found.pw_uid == here:
        return {"user": "", **place.look()}
    if here != 0:  # what this user may do says nothing
        report = replace(place, asked=replace(asked, settings_only=True)).look()
        note = f"root can test as {found.pw_name}, the daemon's user; only the settings"
        return {"user": "", **report, "notes": [*report["notes"], f"{note} were"]}
    return {"user": found.pw_name, **_as(found, place.look)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What is looked at."""

    where: Directories
    demo: bool
    asked: Asked
    unit: dict[str, str]
    manager: Systemd

    def look(self) -> Report:
        where = self.where
        try:
            given = config.load(
                Path(where.config),
                state=Path(where.state),
                cache=Path(where.cache),
                runtime=Path(where.runtime),
                # a reload does not know how the daemon was started
                demo=self.demo or self.asked.settings_only,
            )
        except UpdaterError as error:
            return {"findings": [of_error("", error).document()], "notes": []}
        found = settings.findings(given)
        asked = self.asked
        if not found and not (asked.offline or asked.settings_only):
            found += network.findings(given)
        if not asked.settings_only:
            found += machine.findings(given, manager=self.manager, unit=self.unit)
        notes = [*settings.notes(given)]
        if not asked.settings_only:
            notes += machine.notes(given)
        report: Report = {
            "findings": [one.document() for one in found],
            "notes": list(notes),
        }
        if not asked.settings_only:
            report["cage"] = machine.cage()
        return report


def _unit(where: Directories) -> str:
    """Return the unit that runs on this configuration; "" for none of the system's."""
    name = config.system_name(Path(where.config))
    first, dash, rest = name.partition("-")
    return f"{first}@{rest}.service" if dash else f"{first}.service" if first else ""


def _user(
    asked: Asked, unit: dict[str, str], where: Directories
) -> pwd.struct_passwd | Finding | None:
    """Return the daemon's user; None where nothing tells another than this one."""
    name = asked.user or unit.get("User") or config.system_name(Path(where.config))
    if not name:
        return None
    try:
        return pwd.getpwnam(name)
    except KeyError:
        if not asked.user and not unit:
            return None  # no service here: whoever types is who runs it
        return Finding(
            code="config",
            what=f"the daemon's user {name!r:.80} does not exist",
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
            said = traceback.format_exc().splitlines()[-1]
            report = {"findings": [_broken(said).document()], "notes": []}
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


def _broken(said: str) -> Finding:
    return Finding(
        code="error",
        what=f"the check as the daemon's user could not be made: {said}",
        do="run it as that user",
    )
