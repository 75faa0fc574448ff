# SPDX-License-Identifier: Apache-2.0
"""Trees are deleted by descriptor: what a name comes to mean changes nothing."""

import os
import pickle
import resource
import shutil

import pytest
from fakes.tools import need_root

from updaterd.files import volumes
from updaterd.files.deletion import delete_at, delete_tree


@pytest.fixture
def outside(tmp_path):
    """What no deletion may touch."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "precious").write_text("precious")
    path.chmod(0o500)
    return path


@pytest.fixture
def tree(tmp_path):
    path = tmp_path / "tree"
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "b" / "file").write_text("x")
    (path / "file").write_text("x")
    return path


def untouched(outside) -> bool:
    return ("precious", 0o500) == (
        (outside / "precious").read_text(),
        outside.stat().st_mode & 0o777,
    )


def test_tree_is_gone_and_nothing_is_told(tree):
    assert () == delete_tree(tree)
    assert not tree.exists()
    assert () == delete_tree(tree)


def test_links_are_deleted_and_never_followed(tree, outside):
    (tree / "a" / "link").symlink_to(outside)
    (tree / "a" / "b" / "up").symlink_to("../../..")

    assert () == delete_tree(tree)

    assert not tree.exists()
    assert untouched(outside)


def test_link_in_place_of_the_tree_itself(tmp_path, outside):
    (tmp_path / "tree").symlink_to(outside)

    assert () == delete_tree(tmp_path / "tree")

    assert not os.path.lexists(tmp_path / "tree")
    assert untouched(outside)


def test_directory_above_that_becomes_a_link_after_it_was_opened(tree, outside):
    """What was opened counts, not what its name means by now."""
    (outside.parent / "moved").mkdir()
    directory = os.open(tree, os.O_RDONLY)
    try:
        tree.rename(outside.parent / "moved" / "tree")
        (outside / "a").parent.chmod(0o700)
        (outside / "a").mkdir()
        (outside / "a" / "precious").write_text("x")
        outside.chmod(0o500)
        tree.symlink_to(outside)

        assert () == delete_at(directory, "a", tree / "a")
    finally:
        os.close(directory)

    assert (outside / "a" / "precious").exists()
    assert untouched(outside)
    assert ["file"] == os.listdir(outside.parent / "moved" / "tree")


def test_directory_that_becomes_a_link_before_it_is_entered(tree, outside):
    top = os.open(tree, os.O_RDONLY)
    with volumes.Descent(top, unlock=True) as place:
        assert ("a", True) in place.entries()
        shutil.rmtree(tree / "a")
        (tree / "a").symlink_to(outside)

        with pytest.raises(NotADirectoryError):
            place.enter("a")
    os.close(top)

    assert untouched(outside)


def test_directory_that_is_moved_away_while_it_is_emptied(tree, outside):
    """The way back up must lead to where we came from."""
    top = os.open(tree, os.O_RDONLY)
    with volumes.Descent(top) as place:
        assert place.enter("a")
        assert place.enter("b")
        outside.chmod(0o700)
        (tree / "a" / "b").rename(outside / "b")

        with pytest.raises(OSError, match="moved away"):
            place.leave()
    os.close(top)


@pytest.mark.slow
def test_very_deep_tree_needs_two_descriptors(tree):
    """An application may have made it; no limit of descriptors or of paths counts."""
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        assert () == delete_tree(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not tree.exists()


def as_user(number, act):
    """Return what `act` returns in a fork of this process that is another user's."""
    need_root()
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setresuid(number, number, number)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(act(), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pickle.load(pipe)  # noqa: S301 - from this process's own fork
    os.wait()
    return found


@pytest.fixture
def shared(tmp_path):
    """A folder of user 1234 that every user can come to."""
    need_root()
    for path in (tmp_path, *tmp_path.parents[:4]):
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o755)
    path = tmp_path / "shared"
    path.mkdir()
    os.chown(path, 1234, 1234)
    return path


def test_directories_without_rights_are_deleted_by_their_owner(shared):
    """A release may hold directories that nobody may write, or enter."""
    (shared / "tree" / "closed").mkdir(parents=True)
    (shared / "tree" / "closed" / "file").write_text("x")
    for path in (shared / "tree" / "closed" / "file", shared / "tree" / "closed",
                 shared / "tree"):  # fmt: skip
        os.chown(path, 1234, 1234)
    (shared / "tree" / "closed").chmod(0)
    (shared / "tree").chmod(0o500)

    assert () == as_user(1234, lambda: delete_tree(shared / "tree"))
    assert [] == os.listdir(shared)


def test_directory_of_another_user_is_told_and_the_rest_goes(shared):
    """Its mode stays too: an owner is looked at before a mode is changed."""
    (shared / "tree" / "theirs").mkdir(parents=True)
    (shared / "tree" / "theirs" / "file").write_text("x")
    (shared / "tree" / "ours").write_text("x")
    for path in (shared / "tree", shared / "tree" / "ours"):
        os.chown(path, 1234, 1234)
    (shared / "tree" / "theirs").chmod(0o555)

    (told,) = as_user(1234, lambda: [
        str(one) for one in delete_tree(shared / "tree")
    ])  # fmt: skip

    assert f"{shared}/tree/theirs/file: Permission denied" == told
    assert ["theirs"] == os.listdir(shared / "tree")
    assert 0o555 == (shared / "tree" / "theirs").stat().st_mode & 0o777


def test_mounted_names_with_blanks_are_read_as_they_are():
    assert b"/a b\\c\td" == volumes._plain(rb"/a\040b\134c\011d")


def test_mounts_are_told_apart_without_proc_too(tmp_path):
    for path in (tmp_path, "/proc", "/sys"):
        fd = os.open(path, os.O_PATH)
        try:
            assert volumes.of(fd) == (os.fstat(fd).st_dev, volumes._by_statx(fd))
        finally:
            os.close(fd)
