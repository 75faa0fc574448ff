# SPDX-License-Identifier: Apache-2.0
"""The daemon's signals: none is lost, and each does what the manual says."""

import asyncio
import json
import os
import signal
import socket
from contextlib import asynccontextmanager, closing

import pytest
import structlog
from fakes.waiting import eventually

from updaterd import config, log
from updaterd.cli import main
from updaterd.clocks import Clocks
from updaterd.daemon import service
from updaterd.store.records import Records
from updaterd.store.schema import open_state
from updaterd.system import locks

pytestmark = pytest.mark.slow

CLOCKS = Clocks(now=lambda: 1_800_000_000.0, draw=lambda: 0.5)


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """Listens where systemd would."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(path))
        ear.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield ear


class Daemon:
    def __init__(self, tmp_path, ear):
        self.ear = ear
        self.path = tmp_path / "updaterd.toml"
        self.path.write_text(
            "[feed]\nurl = 'http://127.0.0.1:9/v1/events'\n"
            "[trust]\nroot = '/root.json'\nrepository = 'http://127.0.0.1:9'\n"
        )
        self.directories = dict.fromkeys(("state", "cache", "runtime"), tmp_path)

    def load(self):
        return config.load(self.path, **self.directories)

    async def hears(self, word):
        async with asyncio.timeout(20):
            while word not in (
                said := await asyncio.get_running_loop().sock_recv(self.ear, 4096)
            ):
                assert b"STOPPING=1" not in said

    @asynccontextmanager
    async def running(self):
        self.task = asyncio.create_task(service._Service(self.load, CLOCKS).run())
        await self.hears(b"READY=1")
        yield
        await asyncio.wait_for(self.task, 20)


@pytest.fixture
def daemon(tmp_path, systemd):
    return Daemon(tmp_path, systemd)


async def test_reload_is_not_the_beginning_of_the_end(daemon):
    """After STOPPING=1 systemd waits for the process to end, and then kills it."""
    async with daemon.running():
        os.kill(os.getpid(), signal.SIGHUP)
        await daemon.hears(b"RELOADING=1")
        await daemon.hears(b"READY=1")

        os.kill(os.getpid(), signal.SIGTERM)


async def test_hand_over_is_a_sign_of_life(daemon, monkeypatch):
    """Reloads that come faster than the watchdog's pace must not starve it."""
    monkeypatch.setenv("WATCHDOG_USEC", "600000000")  # a third of it never passes
    async with daemon.running():
        await daemon.hears(b"WATCHDOG=1")
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
            await daemon.hears(b"RELOADING=1")
            await daemon.hears(b"READY=1")
            await daemon.hears(b"WATCHDOG=1")

        os.kill(os.getpid(), signal.SIGTERM)


async def test_end_that_comes_during_a_reload_is_not_lost(daemon):
    async with daemon.running():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)


async def test_what_would_not_work_is_in_the_log_from_the_start(daemon):
    """With fields: not found out at night by an update that fails."""
    with structlog.testing.capture_logs() as told:
        async with daemon.running():
            await asyncio.to_thread(
                eventually, lambda: [line for line in told if "remedy" in line]
            )
            os.kill(os.getpid(), signal.SIGTERM)

    (found,) = [line for line in told if line["event"] == "config_finding"]
    assert ("warning", "bad_root") == (found["log_level"], found["code"])
    assert "/root.json" in found["cause"]
    assert found["remedy"]


async def test_the_layers_of_the_cage_are_told_at_the_start(daemon, tmp_path):
    """In the log and in `status`: nobody finds out later that one was missing."""

    def published():
        return json.loads((tmp_path / "status.json").read_bytes())["cage"]

    with structlog.testing.capture_logs() as told:
        async with daemon.running():
            await asyncio.to_thread(eventually, published)
            cage = published()
            os.kill(os.getpid(), signal.SIGTERM)

    (found,) = [line for line in told if line["event"] == "cage"]
    assert found["layers"] == cage["layers"]
    assert ("warning" if cage["missing"] else "info") == found["log_level"]
    assert ("cage_open" if cage["missing"] else None) == found.get("code")


async def test_reload_of_a_broken_file_changes_nothing(daemon):
    async with daemon.running():
        daemon.path.write_text("[feed")
        os.kill(os.getpid(), signal.SIGHUP)
        await daemon.hears(b"RELOADING=1")
        await daemon.hears(b"READY=1")
        assert not daemon.task.done()

        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def ask(daemon, tmp_path, capsys):
    """Asks `updaterd status`; the daemon's log, of the same process here, is apart."""

    def _ask(*words):
        where = [f"--{kind}-dir={tmp_path}" for kind in ("state", "cache", "runtime")]
        code = main(["status", *words, f"--config={daemon.path}", *where])
        return code, capsys.readouterr().out

    with (tmp_path / "log").open("w") as file:
        log.configure(file=file)
        yield _ask
        structlog.reset_defaults()


async def test_status_tells_what_runs_and_what_is_wrong_with_the_file(daemon, ask):
    """The daemon runs on what it read before: that is how things stand."""
    good = daemon.path.read_text() + "[products.acme]\nroot = '/opt/acme'\n"
    daemon.path.write_text(good)
    async with daemon.running():
        with locks.hold(daemon.path.with_name("lock"), subject="as the process does"):
            daemon.path.write_text("[feed")
            os.kill(os.getpid(), signal.SIGHUP)
            await daemon.hears(b"STATUS=degraded: configuration refused")

            for words in ((), ("--json",)):
                code, told = await asyncio.to_thread(ask, *words)
                assert 20 == code
                assert "acme" in told
                assert "not valid TOML" in told
                assert "goes on with what it read before" in told
            assert "config" == json.loads(told)["configuration"]["refused"]["code"]

            daemon.path.write_text(good)  # mended, and not yet read by the daemon
            _, told = await asyncio.to_thread(ask)
            assert "not valid TOML" in told

            os.kill(os.getpid(), signal.SIGHUP)
            await daemon.hears(b"READY=1")
            await daemon.hears(b"STATUS=")
            _, told = await asyncio.to_thread(ask)
            assert "configuration" not in told

        os.kill(os.getpid(), signal.SIGTERM)
    daemon.path.write_text("[feed")
    code, told = ask()
    assert 4 == code
    assert "acme" in told
    assert "not valid TOML" in told


async def test_database_that_is_removed_is_made_anew_and_that_is_told(daemon, tmp_path):
    """The daemon goes on with what stands there now, and `status` says so."""
    async with daemon.running():
        (tmp_path / "state.db").unlink()
        os.kill(os.getpid(), signal.SIGUSR1)
        await daemon.hears(b"READY=1")

        os.kill(os.getpid(), signal.SIGTERM)

    with closing(open_state(tmp_path / "state.db")) as connection:
        assert "removed or replaced" in Records(connection).meta("set_aside")
