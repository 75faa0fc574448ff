# SPDX-License-Identifier: Apache-2.0
"""Worker processes: what cannot be started is told, and none is left behind."""

import asyncio
import sys

import pytest

from updaterd.daemon.workers import Ended, Workers


@pytest.mark.parametrize("niceness", [0, 10])
async def test_interpreter_that_is_gone_is_a_worker_that_could_not_be_started(
    monkeypatch, niceness
):
    """An upgrade replaces it while the daemon runs; the daemon must outlive that."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    ended = await Workers([], niceness=niceness).update("acme", trigger="event")

    assert ended.crashed
    assert "could not be started" in str(ended)


async def test_worker_that_is_being_started_is_ended_too():
    """A stop at that very moment must not leave it, nor wait until it is done."""
    workers = Workers([])

    async def spawn(product, trigger, pushed):
        return await asyncio.create_subprocess_exec("/bin/sleep", "600")

    workers._spawn = spawn
    at_work = asyncio.create_task(workers.update("acme", trigger="boot"))
    await asyncio.sleep(0)

    await workers.stop(grace_s=0, patience_s=5)

    assert Ended(code=-15) == await at_work
    assert (await workers.update("acme", trigger="event")).crashed


@pytest.mark.parametrize("code", [1, 2, 3, 120, 126, 127, 130, -6, -9, -40])
def test_only_a_documented_code_says_how_things_stand(code):
    ended = Ended(code=code)

    assert ended.crashed
    assert str(ended)


async def test_worker_in_its_critical_section_may_end_it():
    """Asked to end it ends in its own time, and only beyond the patience is killed."""
    script = (
        "import signal, sys\n"
        "got = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: got.append(1))\n"
        "print('ready', flush=True)\n"
        "while not got: signal.pause()\n"
        "if sys.argv[1] == 'stuck': signal.pause()\n"
        "sys.exit(20)"
    )
    for how, code, patience_s in (("ends", 20, 600), ("stuck", -9, 0.2)):
        workers = Workers([])

        async def spawn(product, trigger, pushed, how=how):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", script, how), stdout=asyncio.subprocess.PIPE
            )
            await process.stdout.readline()
            return process

        workers._spawn = spawn
        at_work = asyncio.create_task(workers.update("acme", trigger="boot"))
        await asyncio.sleep(0)  # it is being started; `stop` waits for that

        await workers.stop(grace_s=0, patience_s=patience_s)

        assert Ended(code=code) == await at_work
