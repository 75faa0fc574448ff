# SPDX-License-Identifier: Apache-2.0
"""Old releases go, but never one that something runs from."""

import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from fakes.disk import install_root
from fakes.tools import need_root

from updaterd.install import activate, leases, stage
from updaterd.install.prune import Old, in_use, prune, survey

EMPTY = Path("/nonexistent")


@pytest.fixture
def root(tmp_path):
    found = install_root(tmp_path / "acme", running="1", staged="2")
    activate.activate(found, "2")
    for version in ("3", "4"):
        (found / "releases" / version / "bin").mkdir(parents=True)
        activate.activate(found, version)
    return found


@pytest.fixture
def no_processes(tmp_path):
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def left(root):
    return sorted(path.name for path in (root / "releases").iterdir())


def test_the_newest_stay_and_the_rest_goes(root, no_processes):
    gone = prune(root, ("4", "3", "2", "1"), keep=3, proc=no_processes)

    assert ("1",) == gone.free
    assert ["2", "3", "4"] == left(root)
    assert ["manifests"] == os.listdir(root / stage.PRIVATE)


def test_a_run_killed_while_it_kept_a_manifest_leaves_nothing(root):
    """Files have a name for the time being; `durable` says what a kill leaves."""
    listing = stage.listing_path(root, "4")
    listing.write_bytes(b"signed")
    mark = stage.private(root) / ".deleting-1.0badcafe.new"
    for path in (mark, listing.with_name(".4.json.0badcafe.new")):
        os.link(listing, path)

    assert () == stage.clear_leftovers(root)
    assert ["manifests"] == os.listdir(root / stage.PRIVATE)
    assert b"signed" == listing.read_bytes()
    assert 1 == listing.stat().st_nlink


def test_keep_1_keeps_one(root, no_processes):
    """The one to go back to stays while a trial lasts; then it is one too many."""
    prune(root, ("4", "3", "2", "1"), keep=1, proc=no_processes)

    assert ["4"] == left(root)
    assert not os.path.lexists(root / "previous")


def test_previous_is_among_those_that_are_kept(root, no_processes):
    """Whatever its place in the order: a roll back by hand goes there."""
    activate.go_back(root, "4", previous="1")

    prune(root, ("4", "3", "2", "1"), keep=2, proc=no_processes)

    assert ["1", "4"] == left(root)


def test_release_on_trial_in_the_past_counts_by_order_not_by_name(root, no_processes):
    """Unknown ones are the oldest."""
    prune(root, ("4", "3", "1"), keep=3, proc=no_processes)

    assert ["1", "3", "4"] == left(root)


def process(*argv, cwd="/"):
    child = subprocess.Popen(
        argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    return child


LIVE = "print('up', flush=True); input()"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["program", "cwd", "open"])
def test_release_that_a_process_runs_from_stays(root, how):
    release = root / "releases" / "1"
    if how == "program":
        program = release / "python"
        # a real copy: the program's own path is what /proc shows
        program.write_bytes(Path(sys.executable).resolve().read_bytes())
        program.chmod(0o755)
        sleeper = release / "sleep"
        sleeper.write_bytes(Path("/bin/sleep").resolve().read_bytes())
        sleeper.chmod(0o755)
        child = subprocess.Popen([sleeper, "60"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)  # fmt: skip
    elif how == "cwd":
        child = process(sys.executable, "-c", LIVE, cwd=release)
    else:
        code = f"f = open({str(release / 'VERSION')!r}); {LIVE}"
        child = process(sys.executable, "-c", code)
    try:
        assert ("2",) == prune(root, ("4", "3", "2", "1"), keep=2).free
        assert "1" in left(root)
    finally:
        child.kill()
        child.communicate()

    assert ("1",) == prune(root, ("4", "3", "2", "1"), keep=2).free


def test_process_started_through_current_before_it_moved_keeps_everything(root):
    """An interpreter has closed its script; which release it was cannot be told."""
    (root / "current" / "app.py").write_text(LIVE)
    child = process(sys.executable, root / "current" / "app.py")
    try:
        for version in ("5", "6"):
            (root / "releases" / version).mkdir()
            activate.activate(root, version)

        assert in_use(root).everything
        found = prune(root, ("6", "5", "4", "3", "2", "1"), keep=2)
        assert ((), {"1", "2", "3", "4"}) == (found.free, set(found.busy))
    finally:
        child.kill()
        child.communicate()

    assert not in_use(root).everything


def test_tree_set_aside_stays_while_something_runs_from_it(root):
    """A repaired release's damaged tree may still be running."""
    child = process(sys.executable, "-c", LIVE, cwd=root / "releases" / "1")
    try:
        stage.set_aside(root, root / "releases" / "1")
        prune(root, ("4", "3", "2"), keep=9)
        assert 1 == len(list((root / stage.PRIVATE).glob("trash-*")))
    finally:
        child.kill()
        child.communicate()

    prune(root, ("4", "3", "2"), keep=9)
    assert [] == list((root / stage.PRIVATE).glob("trash-*"))


def as_user(number, act):
    """Return what `act` returns in a fork of this process that is another user's."""
    need_root()
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            os.setgroups([])
            os.setresuid(number, number, number)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(act(), pipe)
        except BaseException:  # noqa: BLE001 # a fork must not go on with the tests
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pickle.load(pipe)  # noqa: S301 - from this process's own fork
    os.wait()
    return found


def open_the_way(root):
    """Let every user come to `root`; pytest's folders are this one's alone."""
    for path in (root, *root.parents[:4]):
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o755)


@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden"])
def test_daemon_without_root_keeps_what_another_user_runs_from(
    root, hidden, no_processes
):
    """As packaged: its own system user, other users' processes not even listed."""
    need_root()
    open_the_way(root)
    program = root / "releases" / "1" / "bin-sleep"
    program.write_bytes(Path("/bin/sleep").resolve().read_bytes())
    program.chmod(0o755)
    subprocess.run(["chown", "-R", "1234", root], check=True)
    proc = no_processes if hidden else Path("/proc")

    def act():
        return prune(root, ("4", "3", "2", "1"), keep=2, proc=proc)

    child = subprocess.Popen([program, "60"], user=65534, group=65534, extra_groups=[])
    try:
        while_it_runs = as_user(1234, act)
    finally:
        child.kill()
        child.wait()
    afterwards = as_user(1234, act)

    assert (("2",), ["1"]) == (while_it_runs.free, list(while_it_runs.busy))
    assert (("1",), []) == (afterwards.free, list(afterwards.busy))


def test_file_that_is_open_anywhere_is_found_and_nothing_else(root):
    """Any file of the tree counts, read or mapped; a link does not."""
    release = root / "releases" / "1"
    (release / "bin").mkdir(exist_ok=True)
    (release / "bin" / "library").write_bytes(b"x")
    (release / "bin" / "link").symlink_to("library")
    assert leases.is_open(release) is False

    with (release / "bin" / "library").open("rb"):
        assert leases.is_open(release) is True
    (release / "other-name").hardlink_to(release / "bin" / "library")
    with (release / "bin" / "library").open("rb"):
        assert leases.is_open(release) is False  # the other name may be what is used


def test_file_that_cannot_be_asked_about_is_not_taken_for_unused(root):
    """Without root, another user's file: there is no telling, so it stays."""
    need_root()
    open_the_way(root)

    def act():
        return survey(root, ("4", "3", "2", "1"), keep=2)

    found = as_user(1234, act)

    assert ((), ["1", "2"]) == (found.free, list(found.busy))
    assert ("1", "2") == act().free


def test_nothing_to_prune_looks_at_no_process(root):
    assert Old() == prune(root, ("4", "3", "2", "1"), keep=4, proc=EMPTY)
