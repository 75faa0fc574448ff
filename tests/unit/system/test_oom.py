# SPDX-License-Identifier: Apache-2.0
"""A kill for want of memory is told as that, by what the kernel counted."""

import asyncio
import signal

import pytest

from updaterd.daemon.workers import Ended, Workers
from updaterd.install.process import Ran
from updaterd.system import oom


@pytest.fixture
def group(tmp_path):
    """A control group's files; returns what sets the kernel's count."""
    folder = tmp_path / "groups/system.slice/updaterd.service"
    folder.mkdir(parents=True)
    (tmp_path / "own").write_text("1:name=x:/y\n0::/system.slice/updaterd.service\n")

    def count(number):
        (folder / "memory.events").write_text(f"low 0\noom 7\noom_kill {number}\n")

    return count


def test_kills_of_ones_own_group_are_counted(group, tmp_path):
    group(3)
    assert 3 == oom.kills(tmp_path / "groups", tmp_path / "own")


@pytest.mark.parametrize("text", [None, "", "oom_kill\n", "oom_kill x\n", "oom 1\n"])
def test_unknown_is_none(group, tmp_path, text):
    """Other kernels, other groups, no /sys: then SIGKILL is just that."""
    group(0)
    path = tmp_path / "groups/system.slice/updaterd.service/memory.events"
    path.unlink() if text is None else path.write_text(text)
    assert 0 == oom.kills(tmp_path / "groups", tmp_path / "own")
    assert 0 == oom.kills(tmp_path, tmp_path / "absent")


@pytest.mark.parametrize(
    ("counted", "number", "starved"),
    [([0, 1], signal.SIGKILL, True), ([1, 1], signal.SIGKILL, False),
     ([0, 1], signal.SIGSEGV, False)],
)  # fmt: skip
async def test_worker_that_ran_out_of_memory_is_told_as_that(counted, number, starved):
    counts = iter(counted)
    workers = Workers([], oom_kills=lambda: next(counts))

    async def spawn(product, trigger, pushed):
        return await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"kill -{number} $$"
        )

    workers._spawn = spawn

    ended = await workers.update("acme", trigger="event")

    assert Ended(code=-number, starved=starved) == ended
    assert ("out of memory" in str(ended)) == starved
    assert ("MemoryMax=" in str(ended)) == starved


def test_hook_that_ran_out_of_memory_is_told_as_that():
    said = str(Ran(-signal.SIGKILL, "", starved=True))
    assert "out of memory" in said
    assert "MemoryMax=" in said
