# SPDX-License-Identifier: Apache-2.0
"""Matching and packing in processes: whatever happens to them, nothing is left."""

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fakes.bundles import grow, make_delta

from updaterd.core.manifest import File
from updaterd.errors import BrokenError
from updaterd.release import tree
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles.grouping import groups
from updaterd.release.bundles.packing import runs
from updaterd.release.bundles.pool import Pool

pytestmark = pytest.mark.slow

ENDS_S = 30  # never waited for unless it fails: a loaded machine takes seconds


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


@pytest.mark.parametrize("moved", ["b/app.so.1.2", "a/app-2.so", "a/app.so.1.3.1"])
def test_a_long_file_that_moved_is_matched_with_its_old_self(tmp_path, moved):
    """Found by name in another folder, or by kind and size under another name."""
    code = random.Random(5).randbytes(1_200_000)
    grow(tmp_path / "old", {"a/app.so.1.2": code, "a/zero": bytes(1 << 20)})
    grow(tmp_path / "new", {moved: code[:600_000] + b"new" + code[600_000:]})

    assert make_delta(tmp_path).length < 1000


def test_an_old_self_is_found_behind_another_hash():
    """Bundlers put one into each name; another file may be nearer in size."""
    sizes = {"js/edit-DuqAmExZ.js": 1_260_000, "js/view-qGX7E9o7.js": 1_200_000}
    old = [File(path, "0" * 64, size, 0o644) for path, size in sizes.items()]
    new = [File("js/view-B0x_9aQs.js", "1" * 64, 1_250_000, 0o644)]

    ((group,), _) = groups(old, new, 1 << 26)

    assert ((1_260_000, 1_200_000),) == group.pieces


TEXTS = {name: random.Random(name).randbytes(600_000) for name in "abcdmn"}
MOVES = {
    # what a file had: before and after
    "to a later bundle": ({"a.js": "abm", "b.js": "cd"}, {"a.js": "ab", "b.js": "cdm"}),
    "to an earlier one": ({"a.js": "ab", "b.js": "cdm"}, {"a.js": "abm", "b.js": "cd"}),
    "to a new one": ({"a.js": "abm", "b.js": "cd"}, {"a.js": "ab", "n.js": "mcd"}),
    "out of a bundle": ({"a.js": "abm"}, {"a.js": "ab", "m.js": "m"}),
    "into a bundle": ({"a.js": "ab", "m.js": "m"}, {"a.js": "abm"}),
}


@pytest.mark.parametrize("move", MOVES)
def test_text_that_moves_between_bundles_is_not_new(tmp_path, move):
    """It is found wherever files of its kind had it; HDiffPatch has to be there."""
    for tree_name, files in zip(("old", "new"), MOVES[move], strict=True):
        grow(
            tmp_path / tree_name,
            {path: b"".join(map(TEXTS.get, parts)) for path, parts in files.items()},
        )
    assert make_delta(tmp_path).length < 2000


def test_new_text_in_several_bundles_is_stored_once(tmp_path):
    """The second one copies it from the first."""
    old = {name: TEXTS[name[0]] * 2 for name in ("a.js", "b.js", "c.js", "d.js")}
    grow(tmp_path / "old", old)
    grow(tmp_path / "new", {name: data + TEXTS["n"] for name, data in old.items()})

    assert make_delta(tmp_path).length < len(TEXTS["n"]) + 2000


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_tree_that_changes_meanwhile_is_an_error_that_says_so(trees, side):
    """What was signed would not be what machines make; nothing is written then."""
    before, after = (tree.scan(trees / name) for name in ("old", "new"))
    data = (trees / side / "d").read_bytes()
    (trees / side / "d").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BrokenError) as caught:
        delta_bundle.build_delta(
            trees / "old",
            before,
            trees / "new",
            after,
            trees / "delta",
            from_version="1",
            to_version="2",
        )

    assert caught.value.code == "tree_changed"
    assert not (trees / "delta").exists()


def test_what_two_groups_make_together_keeps_to_the_format():
    """Zeros beyond the longest gap, before and after a group's end: readers take it."""
    longest = (1 << 24) - 1
    diffs = [b"x" + bytes(9), bytes(longest + 5) + b"yy\0", bytes(longest), b"\0z"]
    whole, changes = runs.Runs(), b""
    for diff in diffs:
        group = runs.Runs()
        changes += b"".join(group.add(diff))
        whole.follow(group)

    made, at = bytearray(), 0
    for gap, length in zip(whole.gaps, whole.lengths, strict=True):
        assert length or gap == longest
        made += bytes(gap) + changes[at : at + length]
        at += length
    assert made + bytes(whole.idle) == b"".join(diffs)


def _scattered(draw: random.Random, size: int, every: int) -> bytes:
    out = bytearray(size)
    for at in range(0, size, every):
        out[at + draw.randrange(every)] = draw.randrange(1, 256)
    return bytes(out)


def test_each_piece_of_a_diff_is_stored_the_smaller_way():
    """Rows that come again keep their zeros; other changes beside them are runs."""
    draw = random.Random(3)
    rows = [_scattered(draw, 64, 16) for _ in range(8)]
    table = b"".join(draw.choice(rows) for _ in range(runs.PIECE // 64))
    code = _scattered(draw, runs.PIECE, 128)
    both, alone = runs.Runs(), runs.Runs()
    changes = list(both.add(table + code))
    list(alone.add(code))

    assert len(changes[0]) > 0.9 * runs.PIECE
    assert len(changes[1]) < 0.02 * runs.PIECE
    assert both.gaps[-len(alone.gaps) + 1 :] == alone.gaps[1:]


def _spent(diff: bytes) -> float:
    started = time.thread_time()
    for _ in runs.Runs().add(diff):
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
        "from updaterd.release.bundles import tasks\n"
        "pack = tasks.Pack(parts=[sys.argv[1]], planar=False,"
        " out=sys.argv[2])\n"
        "try: tasks.run(pack)\n"
        "except BrokenError as error: print(error.code)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, pipe, tmp_path / "out"],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        try:
            # Returns once the child has opened the other end: it is at work then.
            with _opened(pipe):
                [child] = _children(parent.pid)
                handle = os.pidfd_open(child)
                try:
                    yield parent, handle
                finally:
                    _kill(handle)
                    os.close(handle)
        finally:
            parent.kill()


@contextmanager
def _opened(pipe: Path, bound_s: float = 60):
    """Open a pipe for writing, as soon as somebody reads it, or fail."""
    late = threading.Event()

    def give_up() -> None:
        late.set()
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))  # this wakes the writer

    timer = threading.Timer(bound_s, give_up)
    timer.start()
    try:
        with pipe.open("wb"):
            timer.cancel()
            assert not late.is_set(), "nobody opened the pipe"
            yield
    finally:
        timer.cancel()
        timer.join()


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path):
    """A child that dies early fails the test that waits for it."""
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(AssertionError, match="nobody opened"),
        _opened(tmp_path / "pipe", bound_s=0.05),
    ):
        pass


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
