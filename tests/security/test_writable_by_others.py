# SPDX-License-Identifier: Apache-2.0
"""Whoever may write a file that the machine obeys decides what runs: it is refused."""

import os
from pathlib import Path

import pytest

from updaterd import config
from updaterd.core.settings import Health, Hooks, Product
from updaterd.files import ownership
from updaterd.install import commands, health, hooks

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")
STRANGER = 54321


@pytest.fixture
def place(tmp_path):
    """Return a hook in a directory of its own, as an owner would keep it."""
    folder = tmp_path / "etc" / "hooks"
    folder.mkdir(parents=True)
    hook = folder / "hook.sh"
    hook.write_text("#!/bin/sh\nexit 0\n")
    for path, mode in ((folder.parent, 0o755), (folder, 0o755), (hook, 0o755)):
        path.chmod(mode)
    return hook


def fault(path: Path) -> str:
    return ownership.fault(path, ownership.owners())


def test_what_only_its_owner_writes_is_obeyed(place):
    assert "" == fault(place)
    assert "" == fault(Path("/bin/sh"))
    assert "" == fault(place.parent / "not-there-yet")


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o702])
def test_a_file_that_everybody_may_write(place, mode):
    place.chmod(mode)
    assert f"every user may write {place}" == fault(place)


def test_a_directory_that_everybody_may_write(place):
    place.parent.chmod(0o777)
    assert f"every user may write {place.parent}" == fault(place)


def test_a_directory_further_up(place):
    place.parent.parent.chmod(0o777)
    assert f"every user may write {place.parent.parent}" == fault(place)


def test_a_sticky_directory_is_good_on_the_way_only(place):
    """Others cannot replace what is in it; they can put something beside the hook."""
    place.parent.parent.chmod(0o1777)
    assert "" == fault(place)
    place.parent.chmod(0o1777)
    assert f"every user may write {place.parent}" == fault(place)


def test_what_is_not_there_and_others_could_put_there(place):
    place.parent.chmod(0o1777)
    assert f"every user may write {place.parent}" == fault(place.parent / "absent")


def test_through_a_link_it_is_the_target_that_counts(place, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    link = shared / "link"
    link.symlink_to(os.path.relpath(place, shared))
    assert "" == fault(link)
    shared.chmod(0o777)  # whoever may write there may point it elsewhere
    assert f"every user may write {shared}" == fault(link)
    shared.chmod(0o755)
    place.chmod(0o757)
    assert f"every user may write {place}" == fault(link)


def test_a_link_in_a_circle_ends(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "" == fault(tmp_path / "a")


@needs_root
@pytest.mark.parametrize("which", ["file", "directory", "above"])
def test_what_belongs_to_somebody_else(place, which):
    path = {"file": place, "directory": place.parent, "above": place.parent.parent}
    os.chown(path[which], STRANGER, 0)
    assert f"{path[which]} belongs to user {STRANGER}" == fault(place)
    assert "" == ownership.fault(place, ownership.owners() | {STRANGER})


@needs_root
def test_a_link_of_somebody_else_in_a_sticky_directory(place, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "link"
    link.symlink_to(place)
    os.chown(link, STRANGER, 0, follow_symlinks=False)
    assert f"{link} belongs to user {STRANGER}" == fault(link)


@needs_root
def test_a_group_may_write_where_it_is_the_owners_own(place):
    """Root's group has only root in it; a group that nobody knows may have anybody."""
    place.chmod(0o775)
    os.chown(place, 0, 0)
    assert "" == fault(place)
    os.chown(place, 0, STRANGER)
    assert f"group {STRANGER} may write {place}" == fault(place)


def test_the_state_directory_says_who_the_daemons_user_is(tmp_path):
    assert os.geteuid() in ownership.owners(tmp_path)
    assert ownership.owners(tmp_path / "absent") == ownership.owners()


@pytest.mark.parametrize(
    "argv",
    [
        ("{}",),
        ("/bin/sh", "{}"),
        ("sh", "-e", "{}", "/etc/hostname"),
        ("timeout", "5", "{}"),
        ("/usr/bin/env", "A=b", "python3", "-I", "{}"),
        ("nice", "-n", "5", "sh", "{}"),
    ],
)
def test_what_a_command_starts_counts_as_it_does(place, argv):
    argv = tuple(word.format(place) for word in argv)
    assert "" == commands.fault(argv, ownership.owners())
    place.chmod(0o777)
    assert f"every user may write {place}" == commands.fault(argv, ownership.owners())


def test_data_that_a_command_is_given_is_no_program(place):
    """A health command may be told to look at a file of the application."""
    place.chmod(0o777)
    argv = ("/usr/bin/test", "-e", str(place))
    assert "" == commands.fault(argv, ownership.owners())
    assert "" == commands.fault(("/bin/sh", "-c", f"test -e {place}"), frozenset({0}))


def product(place: Path) -> Product:
    return Product(
        name="acme",
        root=place.parent.parent / "opt",
        hooks=Hooks(pre_stage=(str(place),)),
        health=Health(command=(str(place),), timeout_s=0.5),
    )


def test_a_hook_that_others_may_write_does_not_run(place, tmp_path):
    place.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    place.chmod(0o757)
    with pytest.raises(
        commands.UnsafeCommandError, match="hook pre_stage of acme: eve"
    ):
        hooks.run_hook("pre_stage", product(place), {}, trusted=ownership.owners())
    with pytest.raises(commands.UnsafeCommandError, match="health command"):
        health.fault(
            product(place).health,
            (),
            trusted=ownership.owners(),
            manager=None,
            getter=None,
            env={},
        )
    with pytest.raises(commands.UnsafeCommandError):
        commands.check(product(place), ownership.owners())
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def configured(tmp_path):
    """Return a configuration that can be loaded."""
    folder = tmp_path / "updaterd"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "root.json").write_text("{}")
    (folder / "updaterd.toml").write_text(
        "[feed]\nurl = 'https://updates.example.com/v1/events'\n"
        f"[trust]\nroot = '{folder}/root.json'\n"
        "repository = 'https://updates.example.com/repo'\n"
    )
    (folder / "conf.d" / "10.toml").write_text("[download]\nmin_free = '1MiB'\n")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def load(folder: Path):
    return config.load(folder / "updaterd.toml", state=folder / "state")


def test_a_configuration_of_ones_own_is_read(configured):
    assert 2**20 == load(configured).download.min_free


@pytest.mark.parametrize(
    "name", ["", "updaterd.toml", "conf.d", "conf.d/10.toml", "root.json"]
)
def test_a_configuration_that_others_may_write_is_not(configured, name):
    path = configured / name
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(config.UnsafeConfigError, match=f"every user may write {path}"):
        load(configured)


def test_a_folder_where_others_could_add_a_part(configured):
    """`conf.d` need not be there, nor have a part in it."""
    (configured / "conf.d" / "10.toml").unlink()
    (configured / "conf.d").chmod(0o1777)
    with pytest.raises(config.UnsafeConfigError, match=f"{configured}/conf.d"):
        load(configured)
