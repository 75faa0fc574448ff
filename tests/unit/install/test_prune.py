"""Old releases go, but never one that something runs from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.disk import install_root

from updaterd.install import activate, stage
from updaterd.install.prune import in_use, prune

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

    assert ("1",) == gone
    assert ["2", "3", "4"] == left(root)
    assert ["manifests"] == os.listdir(root / stage.PRIVATE)


def test_current_and_previous_stay_whatever_keep_says(root, no_processes):
    prune(root, ("4", "3", "2", "1"), keep=1, proc=no_processes)

    assert ["3", "4"] == left(root)


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
        assert ("2",) == prune(root, ("4", "3", "2", "1"), keep=2)
        assert "1" in left(root)
    finally:
        child.kill()
        child.communicate()

    assert ("1",) == prune(root, ("4", "3", "2", "1"), keep=2)


def test_process_started_through_current_before_it_moved_keeps_everything(root):
    """An interpreter has closed its script; which release it was cannot be told."""
    (root / "current" / "app.py").write_text(LIVE)
    child = process(sys.executable, root / "current" / "app.py")
    try:
        for version in ("5", "6"):
            (root / "releases" / version).mkdir()
            activate.activate(root, version)

        assert in_use(root).everything
        assert () == prune(root, ("6", "5", "4", "3", "2", "1"), keep=2)
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


def test_nothing_to_prune_looks_at_no_process(root):
    assert () == prune(root, ("4", "3", "2", "1"), keep=4, proc=EMPTY)
