# SPDX-License-Identifier: Apache-2.0
"""A racer works in a release's folders while updaterd changes them.

It is a program with updaterd's own rights: an application that runs as the same user.
What it puts there leads to what it must not reach through updaterd, or waits for ever.
`UPDATERD_RACE_S=60` is the long form (CONTRIBUTING.md).
"""

import os
import signal
import time

import pytest
from fakes.bench import NOW, UPDATE, Bench
from fakes.campaigns import REPAIR, RETRY, ROLL_BACK
from fakes.people import at_work
from fakes.starter import import_everything
from fakes.trees import snapshot

RACER = """
import os, random, select, shutil, socket, stat, sys, time
app, victim, kinds = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
aside = app + ".aside"
def put(kind, path, is_folder):
    if kind == "link":
        os.symlink(victim if is_folder else victim + "/data", path)
    elif kind == "hard link":
        os.link(victim + "/data", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # zeros without end
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(path)
def entries(folder, depth=0):
    with os.scandir(folder) as found:
        for entry in found:
            is_folder = entry.is_dir(follow_symlinks=False)
            yield entry.path, is_folder
            if is_folder and depth < 5:
                try:
                    yield from entries(entry.path, depth + 1)
                except OSError:
                    pass
print("up", flush=True)
while not select.select([0], [], [], 0)[0]:  # until it is told to end
    try:
        pool = [e for e in entries(app) if not e[0].endswith("/manifests")]
    except OSError:
        continue
    for path, is_folder in random.sample(pool, min(len(pool), 8)):
        try:
            os.rename(path, aside)
        except OSError:
            continue
        try:
            put(random.choice(kinds), path, is_folder)
            time.sleep(random.choice((0, 0.0005, 0.005, 0.05)))
            os.unlink(path)
        except OSError:
            pass
        try:
            os.rename(aside, path)
        except OSError:
            if os.path.isdir(aside) and not os.path.islink(aside):
                shutil.rmtree(aside, ignore_errors=True)
            else:
                os.unlink(aside)
"""
LAPS = {
    "stage": [NOW, RETRY],
    "activate": [ROLL_BACK, RETRY],
    "repair": [REPAIR, REPAIR],
}
LONGEST_S = 100
"""How long a command may take that works and waits for nothing, on a busy machine."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    import_everything()
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.close()


@pytest.fixture
def victim(tmp_path):
    """Another folder of the same user's."""
    folder = tmp_path / "victim"
    (folder / "deep").mkdir(parents=True)
    (folder / "data").write_text("precious")
    (folder / "deep" / "data").write_text("precious")
    (folder / "data").chmod(0o604)
    for path in (folder, folder / "deep", folder / "data"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return folder


def whole(folder):
    """Return all that updaterd could change of a folder, but how often it is linked."""
    entries = sorted([folder, *folder.rglob("*")])
    found = [(p, p.lstat().st_mode, p.lstat().st_mtime_ns) for p in entries]
    return snapshot(folder), found


def ends(bench, words):
    """Run a command; tell its exit code, or that it never ended."""
    with bench.started(words) as pid:
        limit = time.monotonic() + LONGEST_S
        signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
        signal.alarm(LONGEST_S)
        _, status = os.waitpid(pid, 0)
        signal.alarm(0)
    assert time.monotonic() < limit, f"{words} hangs"
    return os.waitstatus_to_exitcode(status)


KINDS = "link,hard link,fifo,socket,device"


@pytest.mark.parametrize("lap", LAPS)
def test_what_a_racer_puts_into_a_release(bench, victim, racing_s, lap):
    """Nothing is changed through it, nothing waits, and afterwards all is well."""
    bench.reset()
    if lap != "stage":
        assert bench.run(UPDATE) == 0, bench.output()
    before = whole(victim)
    end, rounds = time.monotonic() + racing_s, 0
    with at_work(0, RACER, bench.machine.app, victim, KINDS) as racer:
        while time.monotonic() < end or not rounds:
            rounds += 1
            for words in LAPS[lap]:
                code = ends(bench, words)
                assert code >= 0, bench.output()
                assert code != 70, bench.output()
        racer.stdin.write(b"end")  # it puts back what it holds; a dead one would not
        racer.stdin.flush()
        racer.wait()
    assert whole(victim) == before
    # What the racer lost of the release is put right. An update that finds `current`
    # replaced asks for that, and for another update.
    for words in (RETRY, REPAIR, RETRY):
        ends(bench, words)
    assert bench.broken_tree() == [], bench.output()
    assert "1.1.0" == bench.machine.running, bench.output()
    assert "" == bench.state(), bench.output()
