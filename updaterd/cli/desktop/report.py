# SPDX-License-Identifier: Apache-2.0
"""`updaterd report`: what who helps has to know, in one file, without secrets."""

import argparse
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.parts.options import (
    add_machine_options,
    directories_from,
    settings_from,
    wall_clock,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from updaterd.core.settings import Settings

_NAME = "updaterd-report.tar.gz"
_STEPS = 50


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        default=Path(_NAME),
        metavar="FILE",
        help=f"what is written (default: {_NAME} here; -: standard output)",
    )
    parser.epilog = (
        "A tar archive of texts: status, history with its steps, the configuration,\n"
        "versions, free space. Passwords in addresses, headers, the machine's id and\n"
        "its host name are left out. Nothing is sent: look into it, then send it to\n"
        "whom you trust."
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the file, and say what is in it.

    Raises:
        BrokenError: it cannot be written.
    """
    data, names = bundle(contents(arguments), wall_clock())
    if str(arguments.output) == "-":
        sys.stdout.buffer.write(data)
        return 0
    keep(arguments.output, data)
    print(f"{arguments.output}: {', '.join(names)}")
    print("Secrets are left out. Look into it before you send it.")
    return 0


def keep(path: Path, data: bytes) -> None:
    """Write a report where it was asked for.

    Raises:
        BrokenError: it cannot be written.

    Power cut: there is the report, or what was there before.
    """
    from updaterd import durable
    from updaterd.errors import BrokenError

    try:
        durable.write_file(path, data, mode=0o600)
    except OSError as error:
        raise BrokenError(
            f"{path} cannot be written: {error.strerror}",
            means="there is no report",
            do="name another file by --output, or - for standard output",
            code="output_refused",
        ) from error


def bundle(texts: dict[str, str], now: float) -> tuple[bytes, list[str]]:
    """Return the archive of some texts, and their names."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in texts.items():
            raw = text.encode(errors="replace")
            info = tarfile.TarInfo(f"updaterd-report/{name}")
            info.size, info.mtime, info.mode = len(raw), int(now), 0o600
            archive.addfile(info, io.BytesIO(raw))
    return file.getvalue(), list(texts)


def contents(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what the report says, a text for each file of it.

    What cannot be told is told as that: a report is for a machine in trouble.
    """
    import sqlite3

    from updaterd.errors import UpdaterError

    parts: dict[str, str] = {}
    makers: dict[str, Callable[[], str]] = {
        "versions.txt": _versions,
        "status.json": lambda: _status(settings_from(arguments)),
        "status.txt": lambda: _page(settings_from(arguments)),
        "history.jsonl": lambda: _history(settings_from(arguments)),
        "configuration.json": lambda: _configuration(settings_from(arguments)),
        "space.txt": lambda: _space(arguments),
    }
    for name, make in makers.items():
        try:
            parts[name] = make()
        except (UpdaterError, OSError, ValueError, sqlite3.Error) as error:
            parts[name] = f"this cannot be shown: {error}\n"
    from updaterd.core import secrecy

    secrets = _secrets(arguments)
    return {name: secrecy.without(text, secrets) for name, text in parts.items()}


def _versions() -> str:
    import platform

    from updaterd import __version__

    lines = [
        f"updaterd {__version__}",
        f"python {platform.python_version()}",
        f"linux {platform.release()} {platform.machine()}",
    ]
    try:
        release = platform.freedesktop_os_release()
        lines.append(f"system {release.get('PRETTY_NAME', 'unknown')}")
    except OSError:
        lines.append("system unknown")
    return "\n".join(lines) + "\n"


def _status(settings: "Settings") -> str:
    from updaterd import status
    from updaterd.cli.parts.looking import look

    return status.encode(look(settings, wall_clock())).decode()


def _page(settings: "Settings") -> str:
    from updaterd.cli.parts.looking import look
    from updaterd.cli.parts.page import render

    now = wall_clock()
    return render(look(settings, now), now) + "\n"


def _history(settings: "Settings") -> str:
    from contextlib import closing

    from updaterd import status
    from updaterd.store.records import Records
    from updaterd.store.schema import open_for_reading

    connection = open_for_reading(Path(settings.directories.state) / "state.db")
    if connection is None:
        return ""
    lines = []
    with closing(connection):
        journal = Records(connection)
        for deployment in journal.history(limit=_STEPS):
            row = {**status.describe(deployment), "product": deployment.product}
            row["steps"] = [
                {
                    "state": str(step.state),
                    "at": status.iso(step.at),
                    "code": step.code,
                    "reason": step.reason,
                }
                for step in journal.transitions(deployment.id)
            ]
            lines.append(json.dumps(row))
    return "\n".join(lines) + "\n" if lines else ""


def _configuration(settings: "Settings") -> str:
    """Return the settings that count, as JSON."""
    from dataclasses import asdict

    from updaterd.core import secrecy

    return json.dumps(secrecy.bare(asdict(settings)), indent=1, default=str) + "\n"


def _space(arguments: argparse.Namespace) -> str:
    from updaterd.core.units import format_bytes

    directories = directories_from(arguments)
    places = [Path(directories.state), Path(directories.cache)]
    try:
        places += [Path(p.root) for p in settings_from(arguments).products.values()]
    except Exception as error:  # noqa: BLE001 - told in another file, whatever it is
        del error
    lines = []
    for place in places:
        try:
            disk = os.statvfs(place)
        except OSError as error:
            lines.append(f"{place}: {error.strerror}")
            continue
        free = format_bytes(disk.f_bavail * disk.f_frsize)
        lines.append(f"{place}: {free} free, {disk.f_favail} files more")
    return "\n".join(lines) + "\n"


def _secrets(arguments: argparse.Namespace) -> list[str]:
    """Return words that must not be told: values of headers, the names of this machine.

    They may stand in a text that a server sent back.
    """
    from updaterd.core import secrecy
    from updaterd.net.addresses import token_headers

    words = [os.uname().nodename]
    try:
        settings = settings_from(arguments)
    except Exception as error:  # noqa: BLE001 - without a configuration it names none
        del error
        return words
    known = token_headers(settings.enrolment.network.token_file, settings.enrolment.url)
    words += [value.removeprefix("Bearer ") for value in known.values()]
    for network in (
        settings.feed.network,
        settings.trust.network,
        settings.reports.network,
        settings.enrolment.network,
    ):
        words += network.headers.values()
        words += secrecy.passwords(network.proxy or "")
        if network.headers_file is not None:
            lines = _text(Path(network.headers_file)).splitlines()
            words += [line.partition(":")[2].strip() for line in lines]
    for url in (settings.feed.url, settings.trust.repository, *settings.trust.mirrors):
        words += secrecy.passwords(url)
    for path in (
        Path("/etc/machine-id"),
        Path(settings.directories.state) / "machine-id",
    ):
        words.append(_text(path).strip())
    return words


def _text(path: Path) -> str:
    """Return what a file says; nothing where it cannot be read: nobody told it."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
