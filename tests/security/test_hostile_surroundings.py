# SPDX-License-Identifier: Apache-2.0
"""Hostile surroundings of the real worker: environment, users, clock, disk, power.

Each ends with the same: what is installed is what was signed, or nothing changed.
"""

import os
import resource
import shutil
import signal
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from fakes import origin as origins
from fakes.machine import cli
from fakes.rig import Rig
from fakes.tools import need
from fakes.waiting import eventually


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    assert made.update()[0]["result"] == "installed"
    yield made
    made.close()


def test_hostile_environment(rig, tmp_path):
    """Modules, start-up files, a home and a TMPDIR that others wrote: none is used."""
    evil = tmp_path / "evil"
    marker = tmp_path / "owned"
    for name in ("json", "ssl", "tuf", "httpx", "sitecustomize", "updaterd", "sqlite3"):
        path = evil / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(marker)!r}, 'w')\n")
    world = tmp_path / "tmp"
    world.mkdir()
    world.chmod(0o1777)
    rig.push("1.1.0")
    done = subprocess.run(
        [*cli.command, "update", "acme", *rig.machine.options],
        cwd=evil,
        env={
            "PATH": f"{evil}:/usr/bin:/bin",
            "PYTHONPATH": str(evil),
            "PYTHONSTARTUP": str(evil / "json.py"),
            "PYTHONHOME": "/nonexistent",
            "PYTHONUSERBASE": str(evil),
            "HOME": str(evil),
            "TMPDIR": str(world),
            "IFS": "/",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rig.machine.running == "1.1.0"
    assert not marker.exists()
    assert not list(world.iterdir())


def test_local_users_find_nothing_open(rig):
    """While a bundle comes in: state, cache and staging are closed to others."""
    rig.push("1.1.0")
    seen: dict[str, int] = {}

    def look(handler):
        roots = [rig.machine.root / name for name in ("state", "cache")]
        for root in [*roots, *rig.machine.app.glob(".*")]:
            for path in (root, *root.rglob("*")):
                if path.is_dir() and not path.is_symlink():
                    seen[str(path)] = stat.S_IMODE(path.stat().st_mode)
        handler.file(handler.server.root / handler.path.lstrip("/"))

    rig.origin.misbehave("/blobs/", look)
    shutil.rmtree(rig.machine.root / "cache")
    assert rig.update()[0]["result"] == "installed"
    tops = {str(rig.machine.root / name) for name in ("state", "cache")}
    assert all(seen[top] & 0o077 == 0 for top in tops), seen
    staging = [mode for path, mode in seen.items() if "/opt/acme/." in path]
    assert staging
    private = [p for p in rig.machine.app.glob(".*") if p.is_dir()]
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)


def test_toctou_on_the_download(rig, tmp_path):
    """The bundle is swapped under the worker's hands, without pause: never taken."""
    evil = tmp_path / "evil"
    evil.write_bytes(b"UPDR\x01F" + b"evil" * 1000)
    over = threading.Event()
    swapped = []

    def swap():
        while not over.wait(0.002):
            for path in (rig.machine.root / "cache").rglob("*"):
                try:
                    if path.is_file() and not path.name.endswith("lock"):
                        shutil.copy(evil, tmp_path / "spare")
                        (tmp_path / "spare").replace(path)
                        swapped.append(path)
                except OSError:
                    continue

    for version in ("1.1.0", "1.2.0"):
        rig.push(version)
        thread = threading.Thread(target=swap)
        over.clear()
        thread.start()
        try:
            outcome, said = rig.update()
        finally:
            over.set()
            thread.join()
        assert "Traceback" not in said
        assert outcome["result"] in {"installed", "error"}, outcome
        done = rig.machine("verify", "acme", expect=None)
        assert done.returncode == 0, done.stdout + done.stderr
        assert rig.machine.running == rig.installed
    assert swapped
    rig.push("1.3.0")
    assert rig.update("--retry")[0]["result"] == "installed"


def test_clock_set_to_1970(rig):
    """The real clock of the process: the journal's last good time stands above it."""
    need("faketime", "faketime")
    before = rig.tree()
    year = rig.publisher.now.year
    rig.publisher.now = rig.publisher.now.replace(year=year - 1)
    rig.push("1.1.0")  # signed a year ago: expired for long, but not for 1970

    def update_in_1970():
        words = [*cli.command, "update", "acme", "--json", *rig.machine.options]
        return subprocess.run(
            ["faketime", "-f", "@1970-01-02 00:00:00", *words],
            env={**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    done = update_in_1970()
    assert '"metadata_expired"' in done.stdout, done.stdout + done.stderr
    assert rig.tree() == before
    rig.publisher.now = rig.publisher.now.replace(year=year)
    repository = rig.publisher.open()
    for role in ("snapshot", "acme.releases", "acme.stable"):
        repository.touch(role)
    repository.commit()
    done = update_in_1970()
    assert '"installed"' in done.stdout, done.stdout + done.stderr
    assert "clock" in done.stdout
    codes = [one["code"] for one in rig.machine.status()["trust"]["warnings"]]
    assert codes == ["clock_suspect"]
    assert rig.machine.running == "1.1.0"


def test_slow_drip(rig):
    """The shipped deadline (30 s) ends a server that sends a byte now and then."""
    rig.push("1.1.0")
    before = rig.tree()
    rig.origin.misbehave(r"timestamp\.json", origins.drip_headers)
    outcome, said = rig.update()
    assert outcome["code"] == "timeout"
    assert rig.tree() == before
    assert "Traceback" not in said
    rig.origin.behave()
    assert rig.update()[0]["result"] == "installed"


def test_full_disk(rig):
    """No file may grow: told as such, nothing changed, and with room it installs."""
    rig.push("1.1.0")
    before = rig.tree()

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))

    done = subprocess.run(
        [*cli.command, "update", "acme", "--json", *rig.machine.options],
        preexec_fn=small,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert rig.tree() == before
    assert rig.update()[0]["result"] == "installed"


def test_power_cut_in_mid_download(rig):
    """Daemon and worker killed at once, while bytes come in: the next start goes on."""
    rig.machine.start()
    rig.push("1.1.0")
    before = rig.tree()
    cut = threading.Event()
    held = threading.Event()

    def hold(handler):
        cut.set()
        held.wait(60)

    rig.origin.misbehave("/blobs/", hold)
    rig.machine.kill()
    rig.machine.start()  # looks at its start
    eventually(cut.is_set, event=f"a download: {rig.machine.log()[-2000:]}")
    rig.machine.kill()
    held.set()
    found = {
        name: what for name, what in rig.tree().items() if not name.startswith(".")
    }
    assert found == {n: w for n, w in before.items() if not n.startswith(".")}
    rig.origin.behave()
    rig.machine.start()
    rig.machine.wait_for("1.1.0")
    assert rig.machine.running == "1.1.0"
    rig.machine.daemon.send_signal(signal.SIGTERM)
    assert rig.machine.daemon.wait(40) == 0
    assert Path(rig.machine.current / "bin" / "app").exists()
