# SPDX-License-Identifier: Apache-2.0
"""A machine of its own: a minimal Debian with systemd as PID 1, in a container."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from fakes import packages
from fakes.tools import need, need_root
from fakes.waiting import eventually

SUITE = "bookworm"
PACKAGES = "systemd,systemd-sysv,dbus,polkitd,python3,iproute2"
LEAN = (
    "--aptopt=Acquire::Languages none",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/system/" in str(item.path):
            item.add_marker(pytest.mark.system)


class Booted:
    """The running machine; commands go in by its namespaces."""

    def __init__(self, root: Path, log: Path):
        self.root = root
        self.log = log
        self.console = log.open("wb")
        self.process = self._boot()
        self.pid = ""

    def _boot(self) -> subprocess.Popen:
        return subprocess.Popen(
            [
                *("systemd-nspawn", "--boot", f"--directory={self.root}", "--quiet"),
                *("--register=no", "--keep-unit", "--console=pipe"),
                f"--machine=updaterd-{os.getpid()}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self.console,
            stderr=subprocess.STDOUT,
        )

    def wait_until_up(self) -> None:
        self.pid = eventually(self._leader, event="the container's systemd")
        try:
            eventually(self._is_up, within_s=120)
        except AssertionError:
            raise AssertionError(
                "the machine does not come up:\n" + self.log.read_text()[-3000:]
            ) from None

    def _is_up(self) -> bool:
        done = self.run("systemctl", "is-system-running", "--wait")
        return done.stdout.strip() in {"running", "degraded"}

    def _leader(self):
        assert self.process.poll() is None, self.log.read_text()
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in path.read_text().split():
            # nspawn's own helpers come and go; one that is gone has no words left
            words = Path(f"/proc/{pid}/cmdline").read_text()
            if words and "nspawn" not in words:
                return pid
        return None

    def run(self, *argv, check=False, user=None, **more):
        words = [str(word) for word in argv]
        if user is not None:
            words = [
                *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
                *("env", "HOME=/nonexistent", *words),
            ]
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", "--all", "--", *words],
            capture_output=True,
            text=True,
            check=check,
            timeout=300,
            **more,
        )

    def must(self, *argv, **more) -> str:
        done = self.run(*argv, **more)
        assert 0 == done.returncode, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def show(self, unit: str, name: str) -> str:
        return self.must("systemctl", "show", "--value", f"--property={name}", unit)[
            :-1
        ]

    def journal(self, *words) -> str:
        return self.run("journalctl", "--no-pager", "--quiet", *words).stdout

    def status(self) -> dict:
        done = self.run("updaterd", "status", "--json", "--demo", user=65534)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return {}

    def subscribed(self) -> bool:
        connection = self.status().get("feed", {}).get("connection") or {}
        return connection.get("phase") == "open"

    def product(self, name: str) -> dict:
        for product in self.status().get("products", ()):
            if product["name"] == name:
                return product
        return {}

    def installed(self, name: str) -> str | None:
        found = self.product(name).get("installed")
        return found["version"] if found else None

    def wait_for(self, name: str, version: str, within_s: float = 90) -> None:
        try:
            eventually(lambda: self.installed(name) == version, within_s=within_s)
        except AssertionError:
            raise AssertionError(
                f"{name} {version} never came: {self.product(name)}\n"
                + self.journal("-u", "updaterd", "-n", "60")
            ) from None

    def reboot(self) -> None:
        """Shut it down in order, and wait until it is up again."""
        self.run("systemctl", "poweroff")
        self.process.wait(150)
        self.process, self.pid = self._boot(), ""
        self.wait_until_up()

    def stop(self) -> None:
        if self.process.poll() is None:
            # pull the plug: with its first process go all others; nspawn cleans up
            os.kill(int(self.pid or self.process.pid), signal.SIGKILL)
            self.process.wait()
        self.console.close()


@pytest.fixture(scope="session")
def built():
    """The packages and updaterd's own tree."""
    return packages.built()


def _debian(suite: str, include: str, *options: str) -> Path:
    """Return the archive of a minimal Debian; it is kept for the next run."""
    need_root()
    tool = need("mmdebstrap")
    need("systemd-nspawn", "systemd-container")
    key = hashlib.sha256(f"{suite} {include} {LEAN} {options}".encode()).hexdigest()[
        :12
    ]
    cache = Path(
        os.environ.get("UPDATERD_TEST_CACHE", Path.home() / ".cache/updaterd-tests")
    )
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / f"{suite}-{key}.tar"
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers need the same one
        if not archive.exists():
            fresh = archive.with_suffix(f".{os.getpid()}.tar")
            subprocess.run(
                [
                    *(tool, "--quiet", "--variant=minbase", f"--include={include}"),
                    *(*LEAN, *options, suite, fresh),
                ],
                check=True,
                stdin=subprocess.DEVNULL,
            )
            os.replace(fresh, archive)
    return archive


@pytest.fixture(scope="session")
def debian():
    """Make the archive of a minimal Debian: suite, packages to include, options."""
    return _debian


@pytest.fixture(scope="session")
def rootfs(debian):
    """A minimal Debian, to be booted."""
    return debian(SUITE, PACKAGES)


@pytest.fixture(scope="session")
def machine(rootfs, built, tmp_path_factory):
    """The machine, booted, with the package installed."""
    root = tmp_path_factory.mktemp("machine") / "root"
    root.mkdir(mode=0o755)
    root.parent.chmod(0o755)
    subprocess.run(["tar", "-C", root, "-xf", rootfs], check=True)
    (deb,) = built.glob("updaterd_*.deb")
    shutil.copy(deb, root / "updaterd.deb")
    booted = Booted(root, root.parent / "console")
    try:
        booted.wait_until_up()
        booted.must("dpkg", "--install", "/updaterd.deb")
        yield booted
    finally:
        booted.stop()
        shutil.rmtree(root, ignore_errors=True)
