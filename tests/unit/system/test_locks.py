# SPDX-License-Identifier: Apache-2.0
"""A lock tells the truth about who is at work, and ends with its process."""

import os
import signal
import subprocess
import sys

import pytest

from updaterd.system import locks

HOLDER = """
import sys
from pathlib import Path
from updaterd.system import locks
with locks.hold(Path(sys.argv[1]), subject="x"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    child.stdout.readline()
    yield child
    child.kill()
    child.communicate()


def test_second_process_is_told_and_asking_takes_nothing(tmp_path, holder):
    assert locks.is_held(tmp_path / "lock")
    with (
        pytest.raises(locks.BusyError, match="product acme"),
        locks.hold(tmp_path / "lock", subject="product acme"),
    ):
        pass

    holder.communicate()
    assert not locks.is_held(tmp_path / "lock")


def test_sigkill_frees_the_lock(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()

    with locks.hold(tmp_path / "lock", subject="x"):
        assert locks.is_held(tmp_path / "lock")


def test_closing_the_file_elsewhere_does_not_free_the_lock(tmp_path):
    """As a POSIX record lock would."""
    with locks.hold(tmp_path / "lock", subject="x"):
        (tmp_path / "lock").read_bytes()

        assert locks.is_held(tmp_path / "lock")


def test_no_lock_file_means_nobody_is_at_work(tmp_path):
    assert not locks.is_held(tmp_path / "lock")
