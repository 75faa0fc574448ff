# SPDX-License-Identifier: Apache-2.0
"""A power cut before any step of any writing function leaves a machine that runs.

Each test cuts before step 1, 2, 3, until a run completes; each time what a reader
sees is old or new, whole, and doing it again ends the job.
"""

from itertools import count
from pathlib import Path

import pytest
from fakes.disk import install_root

from updaterd import durable
from updaterd.errors import NotStagedError
from updaterd.install import activate, beside, layout, stage


def version(root: Path) -> str:
    """What runs: read through `current`, as an application would be."""
    return (root / "current" / "VERSION").read_text()


def until_complete(tmp_path, cut_before, make, act, check):
    """Cut before each step in turn; return the steps of the run that completed."""
    for step in count(1):
        root = make(tmp_path / str(step))
        with cut_before(step) as disk:
            act(root)
        check(root, cut=disk.power_was_cut)
        if not disk.power_was_cut:
            return disk.log
    raise AssertionError


def test_activation(tmp_path, cut_before):
    def make(path):
        return install_root(path, running="1.0.0", staged="1.1.0")

    def check(root, *, cut):
        assert version(root) in ("1.0.0", "1.1.0")
        activate.activate(root, "1.1.0")
        assert "1.1.0" == version(root)
        assert "1.0.0" == (root / "previous").readlink().name

    log = until_complete(
        tmp_path, cut_before, make, lambda root: activate.activate(root, "1.1.0"), check
    )
    assert ["symlink", "fsync", "replace", "fsync"] * 2 == log


def test_resuming_syncs_the_swap_a_dead_run_may_have_left_unsynced(
    tmp_path, cut_before
):
    """The rename can be visible yet not durable; the repeat must not skip the fsync."""
    root = install_root(tmp_path, running="1.0.0", staged="1.1.0")
    with cut_before(8):
        activate.activate(root, "1.1.0")

    with cut_before(0) as disk:
        activate.activate(root, "1.1.0")

    assert ["fsync"] == disk.log


@pytest.mark.parametrize("previous", [None, "0.9.0"])
def test_going_back(tmp_path, cut_before, previous):
    """`previous` never ends up naming the release that failed."""

    def make(path):
        root = install_root(path, running="1.0.0", staged="1.1.0")
        (root / "releases" / "0.9.0").mkdir()
        activate.activate(root, "1.1.0")
        return root

    def act(root):
        activate.go_back(root, "1.0.0", previous=previous)

    def check(root, *, cut):
        assert version(root) in ("1.0.0", "1.1.0")
        act(root)
        assert "1.0.0" == version(root)
        link = root / "previous"
        assert previous == (link.readlink().name if link.is_symlink() else None)

    until_complete(tmp_path, cut_before, make, act, check)


def whole(root: Path) -> bool:
    """Whether what `current` leads to is a complete tree, old or new."""
    names = {path.name for path in (root / "current").iterdir()}
    return names == {"VERSION", "lib"} and bool(version(root))


def test_replacing_what_runs_where_names_cannot_be_exchanged(tmp_path, cut_before):
    """`current` leads to the old tree or the new one at each instant."""
    staged = {}

    def make(path):
        root = install_root(path, running="1.0.0")
        (root / "releases" / "1.0.0" / "lib").mkdir()
        staged[root] = tree(root)
        (staged[root] / "lib").mkdir()
        (staged[root] / "lib" / "link").symlink_to("../VERSION")
        return root

    def check(root, *, cut):
        assert whole(root)
        beside.finish(root)
        assert whole(root)
        assert "releases/1.0.0" == str((root / "current").readlink())
        assert (root / "current" / "lib" / "link").is_symlink() == (
            version(root) == "1.1.0"
        )
        assert cut or "1.1.0" == version(root)
        assert ["1.0.0"] == [path.name for path in (root / "releases").iterdir()]
        assert frozenset() == layout.marked(root)

    until_complete(
        tmp_path,
        cut_before,
        make,
        lambda root: beside.switch(staged[root], root, "1.0.0"),
        check,
    )


def test_deleting_a_release_that_cannot_be_moved(tmp_path, cut_before):
    """It is whole, or no release any more for anybody who looks."""

    def check(root, *, cut):
        release = root / "releases" / "1.1.0"
        if "1.1.0" in stage.look(root).whole:
            assert "1.1.0" == (release / "VERSION").read_text()
        else:
            with pytest.raises(NotStagedError):
                activate.activate(root, "1.1.0")
        assert () == beside.delete_in_place(root, "1.1.0")
        assert not release.exists()
        assert frozenset() == layout.marked(root)

    until_complete(
        tmp_path,
        cut_before,
        lambda path: install_root(path, running="1.0.0", staged="1.1.0"),
        lambda root: beside.delete_in_place(root, "1.1.0"),
        check,
    )


def test_withdrawing_a_first_install(tmp_path, cut_before):
    def check(root, *, cut):
        activate.withdraw(root)
        assert not (root / "current").is_symlink()

    until_complete(
        tmp_path,
        cut_before,
        lambda path: install_root(path, running="1.0.0"),
        activate.withdraw,
        check,
    )


def tree(path: Path) -> Path:
    staging = stage.open_staging(path)
    (staging / "VERSION").write_text("1.1.0")
    return staging


def test_commit_of_a_new_release(tmp_path, cut_before):
    """`releases/1.1.0` is not there, or whole."""
    staged = {}

    def make(path):
        root = install_root(path, running="1.0.0")
        staged[root] = tree(root)
        return root

    def act(root):
        stage.commit(staged[root], root, "1.1.0", b"{}")

    def check(root, *, cut):
        release = root / "releases" / "1.1.0"
        assert not release.exists() or "1.1.0" == (release / "VERSION").read_text()
        stage.clear_leftovers(root, trash=True)
        assert ["manifests"] == [p.name for p in (root / ".updaterd").iterdir()]
        if not release.exists():
            stage.commit(tree(root), root, "1.1.0", b"{}")
        assert "1.1.0" == (release / "VERSION").read_text()
        assert b"{}" == stage.manifest_path(root, "1.1.0").read_bytes()

    log = until_complete(tmp_path, cut_before, make, act, check)
    assert log.index("syncfs") < log.index("rename")


def test_commit_over_a_damaged_release_that_runs(tmp_path, cut_before):
    """Repair: the running tree is the damaged one or the good one, never absent."""
    staged = {}

    def make(path):
        root = install_root(path, running="1.1.0")
        (root / "releases/1.1.0/VERSION").write_text("damaged")
        staged[root] = tree(root)
        return root

    def act(root):
        stage.commit(staged[root], root, "1.1.0", b"{}")

    def check(root, *, cut):
        assert version(root) in ("damaged", "1.1.0")
        stage.clear_leftovers(root, trash=True)
        stage.commit(tree(root), root, "1.1.0", b"{}")
        assert "1.1.0" == version(root)

    until_complete(tmp_path, cut_before, make, act, check)


@pytest.mark.parametrize("link", [False, True])
def test_taking_over_what_others_installed(tmp_path, cut_before, link):
    """`current` leads to the same files at every instant."""

    def make(path):
        path.mkdir()
        application = path / ("elsewhere" if link else "current")
        application.mkdir()
        (application / "VERSION").write_text("theirs")
        if link:
            (path / "current").symlink_to(application)
        return path

    def check(root, *, cut):
        assert "theirs" == version(root)
        activate.finish_take_over(root)
        assert "theirs" == version(root)
        if stage.look(root).running != activate.UNMANAGED:
            activate.take_over(root)
        assert "theirs" == version(root)
        assert Path("releases", "unmanaged") == (root / "current").readlink()
        assert not (root / ".current.new").exists()
        if not link:
            assert not (root / "releases" / "unmanaged").is_symlink()

    def act(root):
        if not (root / "current").is_symlink() or link:
            activate.take_over(root)

    until_complete(tmp_path, cut_before, make, act, check)


def test_displacing_a_directory_at_current(tmp_path, cut_before):
    """The directory is kept, whatever happens; `current` always leads somewhere."""

    def make(path):
        root = install_root(path, running="1.0.0")
        (root / "current").unlink()
        (root / "current").mkdir()
        (root / "current" / "VERSION").write_text("theirs")
        return root

    def act(root):
        activate.displace(root, "1.0.0")

    def check(root, *, cut):
        assert version(root) in ("1.0.0", "theirs")
        activate.finish_take_over(root)
        if not (root / "current").is_symlink():
            act(root)
        assert "1.0.0" == version(root)
        kept = list(root.glob(".updaterd/kept-*/VERSION"))
        assert ["theirs"] == [path.read_text() for path in kept]

    until_complete(tmp_path, cut_before, make, act, check)


def test_a_displaced_directory_beside_one_that_was_taken_over(tmp_path):
    """`releases` on another mount: the one taken over stays `.unmanaged` for ever."""
    root = install_root(tmp_path / "app", running="1.0.0")
    taken = root / ".unmanaged"
    taken.mkdir()
    (taken / "VERSION").write_text("first")
    (root / "releases" / "unmanaged").symlink_to("../.unmanaged")
    displaced = root / ".current.new"
    displaced.mkdir()
    (displaced / "VERSION").write_text("second")

    activate.finish_take_over(root)

    assert not displaced.exists()
    assert "first" == (root / "releases/unmanaged/VERSION").read_text()
    kept = list(root.glob(".updaterd/kept-*/VERSION"))
    assert ["second"] == [path.read_text() for path in kept]


def test_setting_a_release_aside(tmp_path, cut_before):
    def act(root):
        stage.set_aside(root, root / "releases" / "1.1.0")

    def check(root, *, cut):
        assert "1.0.0" == version(root)
        if (root / "releases" / "1.1.0").exists():
            act(root)
        stage.clear_leftovers(root, trash=True)
        assert ["1.0.0"] == [path.name for path in (root / "releases").iterdir()]

    until_complete(
        tmp_path,
        cut_before,
        lambda path: install_root(path, running="1.0.0", staged="1.1.0"),
        act,
        check,
    )


def test_write_file(tmp_path, cut_before):
    def make(path):
        path.mkdir()
        (path / "file").write_bytes(b"old")
        return path

    def act(path):
        durable.write_file(path / "file", b"new")

    def check(path, *, cut):
        assert (path / "file").read_bytes() in (b"old", b"new")
        act(path)
        assert b"new" == (path / "file").read_bytes()

    until_complete(tmp_path, cut_before, make, act, check)


def test_make_dir_syncs_every_parent_it_makes(tmp_path, cut_before):
    with cut_before(0) as disk:
        durable.make_dir(tmp_path / "a" / "b" / "c")

    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert 3 == disk.log.count("fsync")
