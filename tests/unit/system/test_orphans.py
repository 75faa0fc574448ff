# SPDX-License-Identifier: Apache-2.0
"""As PID 1 of a container: orphans are reaped, signals and exit codes handed on."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.tools import need, need_root
from fakes.waiting import eventually

pytestmark = pytest.mark.slow

CONFIG = """
[feed]
url = 'http://127.0.0.1:9/v1/events'
[trust]
root = '/root.json'
repository = 'http://127.0.0.1:9'
"""


@pytest.fixture
def words(tmp_path):
    (tmp_path / "updaterd.toml").write_text(CONFIG)
    where = [f"--{kind}-dir={tmp_path}" for kind in ("state", "cache", "runtime")]
    return [f"--config={tmp_path}/updaterd.toml", *where]


@contextmanager
def container(tmp_path, *command):
    """A command as the first process of a PID namespace; yields it and its number."""
    need_root()
    unshare = need("unshare", "util-linux")
    argv = [unshare, "--pid", "--fork", "--kill-child", *command]
    with (tmp_path / "log").open("wb") as log:
        outer = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        yield (
            outer,
            int(eventually(lambda: children(outer.pid), event="a first process")[0]),
        )
    finally:
        outer.kill()
        outer.wait()


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text().split() if path.exists() else []


def state(pid):
    text = Path(f"/proc/{pid}/stat").read_text()
    return text.rpartition(")")[2].split()[0]


def updaterd(*words):
    return [sys.executable, "-I", "-m", "updaterd", *words]


def test_orphans_are_reaped(tmp_path, words):
    """Such as `docker exec` and hooks leave: a dead child of nobody stays for ever."""
    with container(tmp_path, *updaterd("run", *words)) as (_, init):
        eventually(lambda: "daemon_started" in (tmp_path / "log").read_text())
        for _ in range(3):
            subprocess.run(
                [need("nsenter"), f"--target={init}", "--pid", "--", "sh", "-c",
                 f"(sleep 0.1; touch {tmp_path}/orphan) & exit 0"],
                check=True,
            )  # fmt: skip

        eventually((tmp_path / "orphan").exists)
        eventually(lambda: not [pid for pid in children(init) if state(pid) == "Z"])
        assert children(init)  # the daemon goes on


def test_first_process_ends_in_order_and_with_the_daemons_exit_code(tmp_path, words):
    with container(tmp_path, *updaterd("run", *words)) as (outer, init):
        eventually(lambda: "daemon_started" in (tmp_path / "log").read_text())

        os.kill(init, signal.SIGTERM)

        assert 0 == outer.wait(60)
    assert "daemon_stopped" in (tmp_path / "log").read_text()


def test_exit_code_of_a_command_is_the_containers(tmp_path, words):
    with container(tmp_path, *updaterd("status", *words)) as (outer, _):
        assert 4 == outer.wait(60)


def test_elsewhere_there_is_one_process(tmp_path, words):
    """systemd, shells and tests know it by its number."""
    done = subprocess.run(updaterd("status", *words), check=False, capture_output=True)

    assert 4 == done.returncode
