# SPDX-License-Identifier: Apache-2.0
"""The program inside of `NAME-setup.sh`; only Python's standard library.

`shell.py` puts what is to be installed into FACTS, the texts of `filling.py`,
`packages.py` and `placing.py` in the place of their imports, and all into the script.
It runs as `python3 -I -c PROGRAM SCRIPT ARGUMENT...`. Whatever it runs or installs was
compared with a hash that stands in FACTS before.
"""

import argparse
import hashlib
import io
import json
import lzma
import os
import shlex
import shutil
import ssl
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from updaterd.release.kits.filling import desktop_file, for_systemd, settings, unit
from updaterd.release.kits.packages import has_updaterd, is_installed, member, read, run
from updaterd.release.kits.placing import link, prune, venv, write

FACTS: dict[str, Any] = json.loads("{}")
UNIT = "updaterd@.service"
MORE_UNITS = (
    "updaterd-api@.service",
    "updaterd-api@.socket",
    "updaterd-session.service",
)
PIECE = 1 << 18
_NEVER = "\"'\\\x7f"
_NO_UTF8 = "\ud800\udfff"  # how Python has such bytes of a path

SYSTEMCTL = ("systemctl", "--user", "--quiet")


def fail(cause: str, do: str = "") -> "SystemExit":
    """Return an end with a message."""
    text = f"{FACTS['name']}: {cause}" + (f"\n  do: {do}" if do else "")
    return SystemExit(text)


def payload(script: Path) -> tarfile.TarFile:
    """Return what the script carries, compared with its hash.

    Raises:
        fail: it is not what was made.
    """
    length, digest = FACTS["payload"]
    with script.open("rb") as file:
        file.seek(max(0, script.stat().st_size - length))
        data = file.read()
    if hashlib.sha256(data).hexdigest() != digest:
        raise fail("this file is damaged", "fetch it again")
    return tarfile.open(fileobj=io.BytesIO(data))


def updaterd(kind: str, carried: dict[str, bytes]) -> tuple[str, bytes]:
    """Return updaterd's package for this machine: its name and its bytes.

    Raises:
        fail: there is none, or it is not what was pinned.
    """
    machine = os.uname().machine
    for package in FACTS["packages"]:
        if (package["kind"], package["machine"]) == (kind, machine):
            break
    else:
        raise fail(
            f"it has no updaterd for {machine} as {kind}",
            "install updaterd by another way first; or ask the publisher",
        )
    name = package["file"]
    data = carried.get(name) or fetch(package)
    if hashlib.sha256(data).hexdigest() != package["sha256"]:
        raise fail(f"{name} is not what its publisher pinned", "ask the publisher")
    return name, data


def fetch(package: dict[str, Any]) -> bytes:
    """Return a package's bytes, as they come; never more than it should have.

    Raises:
        fail: it cannot be had.
    """
    url, length = package["url"], package["length"]
    parts = urllib.parse.urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme != "https" and not local:
        raise fail(f"{url} is neither https nor loopback")
    data = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            while piece := answer.read(PIECE):
                data += piece
                if len(data) > length:
                    raise fail(f"{url} is longer than its publisher pinned")
                tell(package["file"], len(data), length)
    except ssl.SSLError as error:
        raise fail(f"{url}: {error}", "are the system's CAs here? ca-certificates")
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise fail(f"cannot fetch {url}: {reason}", "see to network and proxy")
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return bytes(data)


def tell(name: str, done: int, whole: int) -> None:
    """Show how far it is, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{name}: {100 * done // whole} %", end="", file=sys.stderr)


# -- for the machine, as root


def install_for_machine(script: Path) -> int:
    """Install the packages by the system's own tool; return the exit code.

    Raises:
        fail: this system's kind of package is not in here.
    """
    kind = system_kind()
    archive = payload(script)
    own = {k: v for k, v in read(archive, "kit/").items() if k.endswith(f".{kind}")}
    if not own:
        raise fail(f"it has no {kind} package", "sh this file with --user")
    files = dict(own)
    if not has_updaterd(kind, FACTS["updaterd"]):
        files |= dict([updaterd(kind, read(archive, "updaterd/"))])
    # not /tmp: it may be small, and apt reads it as a user of its own
    with tempfile.TemporaryDirectory(prefix="updaterd-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        paths = []
        for name, data in sorted(files.items(), reverse=True):  # updaterd first
            path = Path(folder, name)
            path.write_bytes(data)
            path.chmod(0o644)
            paths.append(str(path))
        if kind == "rpm":
            tool = next(filter(shutil.which, ("dnf", "yum")), "")
            return (
                run(tool, "-y", "install", *paths)
                if tool
                else run("rpm", "-U", "--replacepkgs", *paths)
            )
        os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
        apt = ("apt-get", "-y", "-qq", "--no-install-recommends", "--reinstall")
        return run(*apt, "install", *paths)


def remove_from_machine() -> int:
    """Remove the kit's package; return the exit code."""
    kind = system_kind()
    if not is_installed(FACTS["name"], kind):
        print(f"{FACTS['name']} is not installed")
        return 0
    if kind == "rpm":
        return run("rpm", "-e", FACTS["name"])
    os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
    return run("apt-get", "-y", "-qq", "purge", FACTS["name"])


def system_kind() -> str:
    """Return which packages this system takes.

    Raises:
        fail: neither kind.
    """
    if shutil.which("apt-get") and shutil.which("dpkg"):
        return "deb"
    if shutil.which("rpm"):
        return "rpm"
    raise fail("this system has neither apt nor rpm", "as yourself: add --user")


# -- for a person, without root


class Places:
    """Where a person's things are (XDG)."""

    def __init__(self) -> None:
        self.home = Path.home()
        self.data = self._xdg("XDG_DATA_HOME", ".local/share")
        self.runtimes = self.data / "updaterd" / "runtime"
        self.own = self.data / f"updaterd-{FACTS['product']}"
        self.units = self.data / "systemd/user"
        self.command = self.home / ".local/bin/updaterd"
        self.launcher = self.home / ".local/bin/updaterd-launch"
        self.root = str(self.home) + FACTS["user_root"].removeprefix("~")
        self.list = self.own / "installed-files"
        self.notices = self._xdg("XDG_STATE_HOME", ".local/state") / "updaterd"

    def _xdg(self, name: str, default: str) -> Path:
        path = Path(os.environ.get(name, ""))
        return path if path.is_absolute() else self.home / default


def install_for_person(script: Path) -> int:
    """Put everything into a person's places and start it; return the exit code.

    Raises:
        fail: nothing could start there.
    """
    places = Places()
    for folder in map(str, (places.home, places.data)):
        if any(
            c < " " or c in _NEVER or _NO_UTF8[0] <= c <= _NO_UTF8[1] for c in folder
        ):
            raise fail(
                f"{folder!r}: systemd starts no program there, for a quote, a "
                "backslash, a control character or what is not UTF-8 in its name",
                f"as root, for the whole machine: sh {script.name}",
            )
    archive = payload(script)
    units = runtime(places, archive)
    person = read(archive, "person/")
    files: dict[Path, bytes] = {}
    for path, data in person.items():
        folder, _, name = path.partition("/")
        target = {
            "units": places.units / name,
            "desktop": places.data / "applications" / name,
        }.get(folder, places.own / path)
        is_text = folder in ("units", "desktop", "conf.d")
        files[target] = (
            filled(folder, data.decode(), places).encode() if is_text else data
        )
    for name, text in units.items():
        files[places.units / name] = text.encode()
    # who removes it must know of all, also of what was not written to the end
    write(places.list, "".join(f"{file}\n" for file in sorted(files)).encode())
    for file, data in files.items():
        write(file, data)
    return run(*command(places), "kit", "up", FACTS["product"])


def filled(folder: str, text: str, places: Places) -> str:
    """Return a text of a folder of the kit for this person's places."""
    match folder:
        case "conf.d":
            return settings(text, root=places.root, first=str(places.own / "root.json"))
        case "units":
            return unit(text, root=places.root, below=FACTS["user_root"])
        case _:
            return desktop_file(text, root=places.root, launcher=str(places.launcher))


def runtime(places: Places, archive: tarfile.TarFile) -> dict[str, str]:
    """Unpack updaterd, if it is not here; return its units for a person's daemon.

    From its Debian package, on any system: the libraries in it are for every Python
    that it names, and need nothing else of Debian.

    Raises:
        fail: the package has no unit for a person.
    """
    name, data = updaterd("deb", read(archive, "updaterd/"))
    digest = hashlib.sha256(data).hexdigest()[:12]
    target = places.runtimes / f"{name.split('_')[1]}-{digest}"
    packed = member(data)
    if not packed:
        raise fail("updaterd's package has no data.tar.xz", "ask the publisher")
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(packed))) as package:
        files = read(package, "usr/lib/")
    if f"systemd/user/{UNIT}" not in files:
        raise fail(f"{name} is too old for this", "ask the publisher for a newer kit")
    for dead in places.runtimes.glob(".new-*"):  # of a run that was killed
        shutil.rmtree(dead, ignore_errors=True)
    if not target.exists():
        places.runtimes.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=places.runtimes))
        for path, content in files.items():
            if path.startswith("updaterd/site/"):
                write(fresh / path.removeprefix("updaterd/"), content)
        venv(fresh, target)
        fresh.chmod(0o755)
        os.sync()  # its name says that it is whole, also after a power cut
        os.rename(fresh, target)
    link(places.runtimes / "current", target.name)
    for script, more in ((places.command, ""), (places.launcher, " launch")):
        if not script.exists() or is_ours(script, places):
            text = f'#!/bin/sh\nexec {shell_words(places)}{more} "$@"\n'
            write(script, text.encode(), 0o755)
    start = " ".join([for_systemd(command(places)[0]), *command(places)[1:]])
    return {
        name: files[f"systemd/user/{name}"].decode().replace("/usr/bin/updaterd", start)
        for name in (UNIT, *MORE_UNITS)
        if f"systemd/user/{name}" in files
    }


def shell_words(places: Places) -> str:
    """Return what starts updaterd, as a shell reads it."""
    return shlex.join(command(places))


def command(places: Places) -> list[str]:
    """Return what starts updaterd."""
    return [f"{places.runtimes}/current/bin/python", "-I", "-m", "updaterd"]


def is_ours(path: Path, places: Places) -> bool:
    """Tell whether a command in ~/.local/bin starts what we unpacked."""
    try:
        text = path.read_text()
    except (OSError, ValueError):
        return False
    # or that of an older kit, which did not quote it
    return shell_words(places) in text or f"exec {places.runtimes}/" in text


def remove_from_person() -> int:
    """Take it all away but the application's data; return the exit code."""
    places = Places()
    if not places.list.exists():
        print(f"{FACTS['name']} is not installed here")
        return 0
    if (places.own / f"conf.d/50-{FACTS['product']}.toml").exists():
        code = run(*command(places), "kit", "down", "--purge", FACTS["product"])
        if code:
            return code
    delete(places)
    places.list.unlink(missing_ok=True)
    prune(places.own, places.data)
    if os.environ.get("XDG_RUNTIME_DIR"):
        run(*SYSTEMCTL, "daemon-reload")
    return 0


def delete(places: Places) -> None:
    """Delete what this kit brought; with the last kit updaterd, too."""
    others = [
        path
        for path in places.data.glob("updaterd-*/installed-files")
        if path != places.list
    ]
    for line in filter(None, places.list.read_text("utf-8").split("\n")):
        path = Path(line)
        if path.name in (UNIT, *MORE_UNITS) and others:
            continue  # other kits' daemons run by it
        # within what the list of this kit may name, and nothing else
        if path.is_relative_to(places.data):
            path.unlink(missing_ok=True)
            prune(path.parent, places.data)
    if not others:
        if os.environ.get("XDG_RUNTIME_DIR"):  # a person may have enabled it
            run(*SYSTEMCTL, "disable", "--now", "updaterd-session.service")
        (places.notices / "session.json").unlink(missing_ok=True)
        prune(places.notices, places.notices.parent)
        for path in (places.command, places.launcher):
            if is_ours(path, places):
                path.unlink()
        shutil.rmtree(places.runtimes, ignore_errors=True)
        prune(places.runtimes.parent, places.data)


def main(argv: list[str]) -> int:
    """Do what was asked; return the exit code.

    Raises:
        fail: it is not for this user.
    """
    script, words = Path(argv[0]), argv[1:]
    parser = argparse.ArgumentParser(
        prog=f"sh {script.name}",
        description=f"Installs {FACTS['title']} with updaterd, which keeps it up to "
        f"date. Kit {FACTS['version']}.",
    )
    parser.add_argument("--user", action="store_true", help="for you alone, no root")
    parser.add_argument("--remove", action="store_true", help="take it away again")
    arguments = parser.parse_args(words)
    os.umask(0o022)
    is_root = os.geteuid() == 0
    if arguments.user and is_root:
        raise fail("--user is for a person, not for root", "run it as yourself")
    if not arguments.user and not is_root:
        raise fail(
            "for the whole machine, it must run as root",
            f"sudo sh {script.name}; or for you alone: sh {script.name} --user",
        )
    if arguments.user:
        return remove_from_person() if arguments.remove else install_for_person(script)
    return remove_from_machine() if arguments.remove else install_for_machine(script)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
