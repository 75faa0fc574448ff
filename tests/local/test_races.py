# SPDX-License-Identifier: Apache-2.0
"""A racer swaps what a path names, as fast as he can: not once is it taken.

`UPDATERD_RACE_S=60` is the long form (CONTRIBUTING.md).
"""

import json
import os
import sys
from pathlib import Path

import pytest
from fakes.people import DAEMON, STRANGER, at_work, give, give_all, run_as
from fakes.trees import snapshot

# what each run, `config check` and `config grant` ask before anything is touched
JUDGE = """
import json, sys, time
from pathlib import Path
from updaterd.files import ownership, roots
from updaterd.core.settings import Product
root, seconds, state = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
trusted = ownership.owners(state)
taken, looks, odd = 0, 0, set()
end = time.monotonic() + seconds
while time.monotonic() < end or looks < 100:
    looks += 1
    try:
        roots.check(Product(name="acme", root=root), trusted)
        taken += 1
    except roots.UnsafeRootError:
        pass
    except Exception as error:
        odd.add(repr(error))
print(json.dumps({"taken": taken, "looks": looks, "odd": sorted(odd)}))
"""
SWAP = """
import os, socket, stat, sys
folder, victim, kind = sys.argv[1:]
name, spare = folder + "/acme", folder + "/spare"
def put():
    if kind == "link":
        os.symlink(victim, name)
    elif kind == "fifo":
        os.mkfifo(name)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(name)
    elif kind == "file":
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    elif kind == "gone":
        return
print("up", flush=True)
while True:
    try:
        os.rename(name, spare)
        put()
        if kind != "gone":
            os.unlink(name)
        os.rename(spare, name)
    except OSError:
        pass
"""


@pytest.fixture
def victim(ground):
    """Another product of the daemon's, safe by itself."""
    found = ground / "victim"
    (found / "releases" / "1").mkdir(parents=True)
    (found / "releases" / "1" / "data").write_text("precious")
    (found / "current").symlink_to("releases/1")
    return give_all(found, DAEMON)


def judged(root, seconds, *, uid=DAEMON, state="/"):
    words = (sys.executable, "-I", "-c", JUDGE, root, seconds, state)
    found = json.loads(run_as(uid, *words).stdout)
    assert 100 <= found["looks"]
    assert [] == found["odd"]
    return found


@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "file", "gone"])
@pytest.mark.parametrize("who", ["run", "grant"])
def test_what_stands_in_a_strangers_folder_is_never_taken(
    ground, victim, racing_s, kind, who
):
    """Neither by a run of the daemon's nor by root, who grants on its behalf."""
    before = snapshot(victim)
    joe = ground / "joe"
    (joe / "acme").mkdir(parents=True)
    give(joe / "acme", DAEMON)
    give(joe, STRANGER)
    uid, state = (DAEMON, "/") if who == "run" else (0, victim)
    with at_work(STRANGER, SWAP, joe, victim, kind):
        found = judged(joe / "acme", racing_s / 5, uid=uid, state=state)
    assert 0 == found["taken"]
    assert before == snapshot(victim)


def test_a_root_in_a_sticky_folder_is_the_daemons_for_good(ground, victim, racing_s):
    """Others try to move it and put a link there; they cannot, and it is taken."""
    shared = ground / "shared"
    (shared / "acme").mkdir(parents=True)
    give(shared / "acme", DAEMON)
    give(shared, 0, 0o1777)
    with at_work(STRANGER, SWAP, shared, victim, "link"):
        found = judged(shared / "acme", racing_s / 5)
    assert found["looks"] == found["taken"]
    assert not (shared / "acme").is_symlink()


def test_a_name_in_a_sticky_folder_that_is_not_there_yet(ground, victim, racing_s):
    """It would be whose who makes it first."""
    shared = ground / "shared"
    shared.mkdir()
    give(shared, 0, 0o1777)
    code = """
import os, sys
name, victim = sys.argv[1] + "/acme", sys.argv[2]
print("up", flush=True)
while True:
    os.symlink(victim, name)
    os.unlink(name)
    os.mkdir(name)
    os.rmdir(name)
"""
    with at_work(STRANGER, code, shared, victim):
        found = judged(shared / "acme", racing_s / 5)
    assert 0 == found["taken"]


PRUNE = """
import os, shutil, sys, time
from pathlib import Path
from updaterd.install import prune, stage
root, seconds = Path(sys.argv[1]), float(sys.argv[2])
end, rounds = time.monotonic() + seconds, 0
while time.monotonic() < end or not rounds:
    rounds += 1
    for version in ("1", "2"):
        try:
            fresh = root / "fresh"  # no racer puts a link into the path to it
            shutil.rmtree(fresh, ignore_errors=True)
            (fresh / "deep" / "er").mkdir(parents=True)
            (fresh / "deep" / "er" / "data").write_text("old")
            os.rename(fresh, root / "releases" / version)
        except OSError:
            pass
    try:
        prune.prune(root, ("9", "2", "1"), keep=1)
        stage.clear_leftovers(root, trash=True)
    except OSError:
        pass
print(rounds)
"""
INSIDE = """
import os, sys
root, victim = sys.argv[1:]
print("up", flush=True)
while True:
    for name in ("1", "2", "1/deep", "2/deep", "1/deep/er"):
        path = f"{root}/releases/{name}"
        try:
            os.rename(path, f"{root}/aside")
            os.symlink(victim, path)
            os.unlink(path)
            os.rename(f"{root}/aside", path)
        except OSError:
            pass
"""


def test_releases_are_swapped_for_links_while_they_are_deleted(
    ground, victim, racing_s
):
    """By a program that runs as the daemon's user; what the links lead to is root's
    to lose here, who would lose it by following one.
    """
    root = ground / "acme"
    (root / "releases" / "9").mkdir(parents=True)
    (root / "current").symlink_to("releases/9")
    give_all(victim, 0)
    give_all(root, 0)
    os.chmod(victim, 0o755)
    before = snapshot(victim)
    modes = [path.lstat().st_mode for path in sorted(victim.rglob("*"))]
    with at_work(0, INSIDE, root, victim):
        done = run_as(0, sys.executable, "-I", "-c", PRUNE, root, racing_s)
    assert 1 <= int(done.stdout)
    assert before == snapshot(victim)
    assert modes == [path.lstat().st_mode for path in sorted(victim.rglob("*"))]
    assert Path(victim / "releases" / "1" / "data").read_text() == "precious"


MADE = """
import sys, time
from pathlib import Path
from updaterd.files import places
folder, seconds, like = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
end, rounds = time.monotonic() + seconds, 0
while time.monotonic() < end or rounds < 100:
    rounds += 1
    try:
        places.make(folder / "acme", like=like)
    except OSError:
        pass
print(rounds)
"""


def test_a_folder_that_root_makes_is_swapped_before_it_is_given(ground, racing_s):
    """Then root would give away, or close, what a link leads to."""
    theirs, target = ground / "theirs", ground / "target"
    theirs.mkdir()
    target.mkdir(mode=0o755)
    give(theirs, DAEMON)
    code = """
import os, sys
name, target = sys.argv[1] + "/acme", sys.argv[2]
print("up", flush=True)
while True:
    try:
        os.rename(name, name + ".kept")
        os.symlink(target, name)
        os.unlink(name)
        os.rmdir(name + ".kept")
    except OSError:
        pass
"""
    with at_work(DAEMON, code, theirs, target):
        words = (sys.executable, "-I", "-c", MADE, theirs, racing_s, theirs)
        assert 100 <= int(run_as(0, *words).stdout)
    found = target.stat()
    assert (0, 0o755) == (found.st_uid, found.st_mode & 0o7777)
