# SPDX-License-Identifier: Apache-2.0
"""Modes of what updaterd makes are its own decision, not that of a shell's umask."""

import os
import stat

import pytest
from fakes.machine import cli
from fakes.releases import Releases
from fakes.trees import make_tree

from updaterd import durable

pytestmark = pytest.mark.usefixtures("as_typed")

UMASKS = pytest.mark.parametrize("umask", [0o000, 0o077], ids=["000", "077"])


def modes(root) -> dict[str, int]:
    """Return the mode of everything; random names and digests by their folder's."""
    found = {}
    for folder, names, files in os.walk(root):
        for name in [*names, *files]:
            status = os.lstat(os.path.join(folder, name))
            if stat.S_ISLNK(status.st_mode):
                continue
            path = os.path.relpath(os.path.join(folder, name), root)
            plain = "/".join(
                "*" if len(part) > 40 or len(part) == 2 else part
                for part in path.split("/")
            )
            found[plain] = stat.S_IMODE(status.st_mode)
    return found


@pytest.fixture
def under():
    """Return what runs something under a umask, which is put back in the end."""
    kept = os.umask(0o022)

    def act(umask: int, work, *words):
        os.umask(umask)
        try:
            return work(*words)
        finally:
            os.umask(0o022)

    yield act
    os.umask(kept)


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    found = Releases(tmp_path_factory.mktemp("releases"))
    found.push("1.0.0")
    yield found
    found.close()


@UMASKS
def test_first_install_can_be_entered_and_is_written_by_nobody_else(
    releases, under, umask
):
    machines = [
        (mask, releases.machine(releases.root / f"under-{umask:o}-{mask:o}"))
        for mask in (umask, 0o022)
    ]
    for mask, machine in machines:
        machine.app.rmdir()
        machine.app.parent.rmdir()  # both are made
        under(mask, machine, "update", "acme")

    (_, odd), (_, usual) = machines
    assert modes(usual.root) == modes(odd.root)
    for path in (odd.app.parent, odd.app, odd.app / "releases", odd.current):
        assert 0o755 == path.stat().st_mode & 0o7777


@UMASKS
def test_repository_is_the_same(tmp_path, under, umask):
    """A web server may read what is public; nobody else the keys."""
    tree = make_tree(tmp_path / "tree", {"bin/app": "x", "lib/file": "y"})
    folders = [(mask, tmp_path / f"below-{mask:o}" / "ops") for mask in (umask, 0o022)]
    for mask, folder in folders:
        under(
            mask, cli, "release", "init", folder, "--profile", "demo",
            "--product", "acme",
        )  # fmt: skip
        under(
            mask, cli, "release", "push", tree, "--repo", folder, "--product",
            "acme", "--version", "1.0.0", "--channel", "stable", "--no-announce",
        )  # fmt: skip

    (_, odd), (_, usual) = folders
    assert modes(usual.parent) == modes(odd.parent)
    public = {m for path, m in modes(odd / "public").items() if path.endswith(".json")}
    assert {0o644} == public
    assert 0o700 == (odd / "keys").stat().st_mode & 0o7777


@UMASKS
def test_folders_and_files_that_are_settled(tmp_path, under, umask):
    def act():
        durable.make_dir(tmp_path / "a" / "b", mode=0o750)
        durable.make_dir(tmp_path / "c" / "d")
        (tmp_path / "fresh").write_bytes(b"x")
        durable.settle(tmp_path / "fresh", tmp_path / "e" / "f" / "file")

    under(umask, act)

    found = modes(tmp_path)
    assert {0o755} == {found[name] for name in ("a", "c", "c/d", "e", "e/f")}
    assert (0o750, 0o644) == (found["a/b"], found["e/f/file"])


@UMASKS
def test_hooks_start_with_the_daemon_s_umask(releases, under, umask, tmp_path):
    seen = tmp_path / "seen"
    machine = releases.machine(
        tmp_path / "machine",
        product_extra=f'hooks = {{ pre_stage = ["/bin/sh", "-c", "umask > {seen}"] }}',
    )

    under(umask, machine, "update", "acme")

    assert 0o022 == int(seen.read_text(), 8)
