# SPDX-License-Identifier: Apache-2.0
"""`updaterd run` becomes the daemon: same process, all it was told, nothing else."""

import os
import pty
import select
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fakes.waiting import eventually

from updaterd.daemon import bytecode

pytestmark = pytest.mark.slow

RUN = [sys.executable, "-I", "-m", "updaterd", "run"]
AS_SYSTEMD = ["/bin/sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh"]
CONFIG = """
[feed]
url = 'http://127.0.0.1:9/v1/events'
[trust]
root = '/root.json'
repository = 'http://127.0.0.1:9'
"""


@pytest.fixture
def options(tmp_path):
    (tmp_path / "updaterd.toml").write_text(CONFIG)
    return ["--config=updaterd.toml", *places(tmp_path)]


def places(folder):
    return [f"--{kind}-dir={folder}" for kind in ("state", "cache", "runtime")]


class Running:
    """A daemon under somebody who listens as systemd would."""

    def __init__(self, process, ear):
        self.process = process
        self.ear = ear

    def hears(self, word):
        """Wait for a notification; return the process that sent it."""
        while True:
            said, ancillary, _, _ = self.ear.recvmsg(4096, socket.CMSG_SPACE(12))
            if word in said:
                ((_, _, credentials),) = ancillary
                return int.from_bytes(credentials[:4], sys.byteorder)

    @property
    def command_line(self):
        return Path(f"/proc/{self.process.pid}/cmdline").read_bytes().split(b"\0")


@contextmanager
def running(tmp_path, options, **more):
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ear.settimeout(60)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), **more}
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*AS_SYSTEMD, *RUN, *options],
                cwd=tmp_path,
                env=environ,
                stdout=log,
                stderr=log,
            )
        try:
            yield Running(process, ear)
        finally:
            process.kill()
            process.wait()


def test_process_that_was_started_is_the_daemon(tmp_path, options):
    """systemd knows it by its number: it takes READY=1 from no other (NotifyAccess)."""
    with running(tmp_path, options) as daemon:
        assert daemon.process.pid == daemon.hears(b"READY=1")
        assert b"updaterd.daemon" in daemon.command_line

        daemon.process.terminate()

        assert 0 == daemon.process.wait(60)


def test_watchdog_is_fed_after_the_hand_over(tmp_path, options):
    """WATCHDOG_PID names the process that systemd started, and that is still it."""
    with running(tmp_path, options, WATCHDOG_USEC="300000") as daemon:
        daemon.hears(b"READY=1")

        assert daemon.process.pid == daemon.hears(b"WATCHDOG=1")


def test_reload_reads_the_same_file_again(tmp_path, options):
    """Named from the folder it was started in; a mistake in it ends nothing."""
    with running(tmp_path, options) as daemon:
        daemon.hears(b"READY=1")
        (tmp_path / "updaterd.toml").write_text("[feed")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hears(b"RELOADING=1")
        daemon.hears(b"READY=1")
        assert "reload_refused" in (tmp_path / "log").read_text()

        product = f"[products.acme]\nroot = '{tmp_path}/acme'\n"
        (tmp_path / "updaterd.toml").write_text(CONFIG + product)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hears(b"RELOADING=1")
        daemon.hears(b"READY=1")
        while "products=acme" not in (tmp_path / "log").read_text():
            daemon.hears(b"STATUS=")


@pytest.mark.parametrize(
    ("text", "told"), [("[feed", "not valid TOML"), ("[feed]\nrul = 1", "mistake")]
)
def test_configuration_that_cannot_be_used_is_told_as_by_any_command(
    tmp_path, options, text, told
):
    (tmp_path / "updaterd.toml").write_text(text)

    done = subprocess.run(
        [*RUN, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert 1 == done.returncode
    assert told in done.stderr
    assert "what to do" in done.stderr
    assert "Traceback" not in done.stderr


def test_state_that_cannot_be_opened_is_told(tmp_path, options):
    (tmp_path / "state.db").mkdir()

    done = subprocess.run(
        [*RUN, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert 1 == done.returncode
    assert "what to do" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_are_read_before_the_hand_over(tmp_path, options):
    done = subprocess.run(
        [*RUN, *options, "--log=loud"], capture_output=True, text=True, check=False
    )

    assert 2 == done.returncode
    assert "usage: updaterd run" in done.stderr


def test_daemon_ends_with_its_terminal_by_interrupt(tmp_path, options):
    """Ctrl-C, typed where `updaterd run` was: told by lines, ended in order."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(RUN[0], [*RUN, *options])  # noqa: S606 - as a shell does
    seen = b""

    def shown():
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, seen
        return os.read(terminal, 4096)

    while b"feed_state" not in seen:
        seen += shown()
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)

    assert 0 == os.waitstatus_to_exitcode(status)
    while b"daemon_stopped" not in seen:
        seen += shown()
    assert b"Traceback" not in seen
    os.close(terminal)


class TestByteCode:
    """Byte code that was made for the daemon is used, if it is for this Python."""

    @pytest.fixture
    def prefix(self, tmp_path, monkeypatch):
        """An interpreter's own folder that can be written."""
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        return tmp_path

    def test_without_any_there_are_no_options(self, prefix):
        assert [] == bytecode.options()

    @pytest.mark.parametrize("left", [b"3.11.2 (main, the day before)", b"", b"\xff"])
    def test_what_another_python_or_a_power_cut_left_is_not_used(self, prefix, left):
        (prefix / "bytecode").mkdir()
        (prefix / "bytecode/made-for").write_bytes(left)

        assert [] == bytecode.options()

    def test_daemon_needs_nothing_that_was_not_made(self, prefix, options):
        """What is left to compile is compiled at each start: CPU, and memory.

        Here Python may write what it compiles, so that it shows.
        """
        bytecode.make()
        made = set(prefix.rglob("*.pyc"))
        running_with = [sys.executable, "-I", *bytecode.options()]
        config = prefix / "updaterd.toml"
        config.write_text(CONFIG.replace("127.0.0.1", "localhost"))
        words = [f"{name}={prefix}" for name in ("state", "cache", "runtime")]
        words.append(f"config={config}")
        with (prefix / "log").open("w+") as log:
            process = subprocess.Popen(
                [*running_with, "-m", "updaterd.daemon", "log=human", *words],
                stderr=log,
            )
            eventually(lambda: "phase=waiting" in (prefix / "log").read_text())
            process.terminate()
            process.wait()

        assert made
        assert not set(prefix.rglob("*.pyc")) - made

    def test_is_made_again_from_nothing(self, prefix):
        (prefix / "bytecode").mkdir()
        (prefix / "bytecode/of-python-3.10").touch()

        bytecode.make()

        assert not (prefix / "bytecode/of-python-3.10").exists()
        assert bytecode.options()
