"""Matching and packing in processes: whatever happens to them, nothing is left."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fakes.bundles import grow, make_delta

from updaterd.release import runs
from updaterd.release.pool import Pool

ENDS_S = 3  # what a loaded machine may take to end a process


@pytest.fixture
def trees(tmp_path):
    """Two releases with several long files, so that matching is done in processes."""
    draw = random.Random(7)
    old, new = {}, {}
    for name in ("a", "b.so", "c.txt", "d"):
        code = bytearray(draw.randbytes(900_000) + bytes(300_000))
        old[name] = bytes(code)
        for at in range(500, 1_100_000, 7000):
            code[at] = (code[at] + 9) % 256
        new[name] = bytes(code) + draw.randbytes(400_000)
    grow(tmp_path / "old", old)
    grow(tmp_path / "new", new)
    return tmp_path


def test_the_bundle_does_not_depend_on_how_many_cores_there_are(trees):
    """One after another or side by side, roomy or one at a time: the same bytes."""
    made = []
    for pool in (Pool(cores=1), Pool(cores=2), Pool(cores=4, budget=1)):
        delta = make_delta(trees, pool=pool)
        made.append((delta, (trees / "delta").read_bytes()))

    assert made[0] == made[1] == made[2]


def _spent(diff: bytes) -> float:
    started = time.thread_time()
    for _ in runs.Runs().add(diff, 3):
        pass
    return time.thread_time() - started


def test_zeros_at_the_end_cost_what_they_cost_elsewhere():
    """A diff that ends in zeros takes about as much CPU as one that begins so."""
    zeros = bytes(1 << 16)
    before = min(_spent(zeros + b"x") for _ in range(3))

    assert _spent(b"x" + zeros) < 100 * max(before, 0.001)


@contextmanager
def blocked(tmp_path: Path):
    """Yield a process that performs a task, and its child, which waits for a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = (
        "import sys; from updaterd.errors import BrokenError;"
        "from updaterd.release import work\n"
        "pack = work.Pack(parts=[sys.argv[1]], planar=False, zeros=False,"
        " out=sys.argv[2])\n"
        "try: work.run(pack)\n"
        "except BrokenError as error: print(error.code)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, pipe, tmp_path / "out"],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        try:
            # Returns once the child has opened the other end: it is at work then.
            with pipe.open("wb"):
                [child] = _children(parent.pid)
                handle = os.pidfd_open(child)
                try:
                    yield parent, handle
                finally:
                    _kill(handle)
                    os.close(handle)
        finally:
            parent.kill()


def _children(pid: int) -> list[int]:
    return [
        int(number)
        for task in os.listdir(f"/proc/{pid}/task")
        for number in Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    ]


def _kill(handle: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


def _ended(handle: int) -> bool:
    return bool(select.select([handle], [], [], ENDS_S)[0])


def test_a_process_that_is_killed_is_an_error_that_says_so(tmp_path):
    """By the OOM killer, for one: no traceback, no bundle, a code."""
    with blocked(tmp_path) as (parent, child):
        _kill(child)
        said, _ = parent.communicate(timeout=ENDS_S)

    assert said == "delta_worker\n"


def test_nothing_goes_on_when_who_asked_is_killed(tmp_path):
    """SIGKILL leaves no time to clean up: the kernel ends the child with its parent."""
    with blocked(tmp_path) as (parent, child):
        parent.kill()
        parent.wait()

        assert _ended(child)
