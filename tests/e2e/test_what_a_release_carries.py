# SPDX-License-Identifier: Apache-2.0
"""A tree arrives as it was pushed: modes, folders, times, holes, links."""

import compileall
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.machine import Machine, cli
from fakes.origin import Origin

from updaterd.core import manifest as manifests
from updaterd.release.workspace import this_platform

T = 1_700_000_000


class Site:
    """A publisher and a machine, with nothing but the command line."""

    def __init__(self, folder: Path, product_extra: str = ""):
        self.ops = folder / "ops"
        self.tree = folder / "tree"
        self.tree.mkdir()
        cli(
            "release", "init", self.ops, "--profile", "demo", "--product", "acme",
            "--channel", "stable",
        )  # fmt: skip
        self.origin = Origin(self.ops / "public")
        self.machine = Machine(
            folder / "machine",
            feed="http://127.0.0.1:9/v1/events",
            repository=self.origin.url,
            bootstrap=self.ops / "public" / "metadata" / "1.root.json",
            product_extra=product_extra,
        )

    def close(self):
        self.origin.__exit__()

    def push(self, version: str, *words: str, expect: int | None = 0):
        return cli(
            "release", "push", self.tree, "--repo", self.ops, "--product", "acme",
            "--version", version, "--channel", "stable", "--no-announce", *words,
            expect=expect,
        )  # fmt: skip

    def update(self, expect: int | None = 0):
        return self.machine("update", "acme", expect=expect)

    @property
    def current(self) -> Path:
        return self.machine.current.resolve()

    def file(self, name: str, data: bytes = b"x", mode: int = 0o644, time: int = T):
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        os.utime(path, (time, time))
        return path


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def shown(root: Path) -> dict:
    """Return everything below a directory: kind, mode, time, contents."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            status = path.lstat()
            if path.is_symlink():
                what = ("link", path.readlink(), int(status.st_mtime))
            elif path.is_dir():
                what = ("folder", mode(path))
            else:
                what = ("file", mode(path), int(status.st_mtime), path.read_bytes())
            found[str(path.relative_to(root))] = what
    return found


def test_modes_folders_and_times_arrive_first_and_as_a_delta(site):
    site.file("secret", mode=0o600)
    site.file("nobody", mode=0o000)
    site.file("bin/run", b"#!/bin/sh\n" * 3000, mode=0o711, time=T + 5)
    site.file("private/key", mode=0o400)
    (site.tree / "private").chmod(0o700)
    (site.tree / "empty" / "deeper").mkdir(parents=True)
    (site.tree / "shut").mkdir(mode=0o500)
    (site.tree / "link").symlink_to("empty/deeper")
    site.push("1.0.0")

    site.update()

    assert shown(site.current) == shown(site.tree)
    assert "as it was signed" in site.machine("verify", "acme").stdout

    site.file("secret", b"other", mode=0o640, time=T + 9)
    site.file("bin/run", b"#!/bin/sh\n" * 3001, mode=0o755)
    (site.tree / "empty" / "deeper").chmod(0o750)
    site.push("1.1.0")
    told = site.update().stdout

    assert "1.1.0" in told
    assert shown(site.current) == shown(site.tree)
    site.machine("verify", "acme")


def test_verify_sees_and_repairs_what_the_listing_does_not_say(site):
    site.file("a/b")
    (site.tree / "empty").mkdir(mode=0o700)
    site.push("1.0.0")
    site.update()
    (site.current / "empty").rmdir()
    os.utime(site.current / "a/b")

    told = site.machine("verify", "acme", expect=None)

    assert told.returncode != 0
    assert "empty" in told.stdout + told.stderr
    assert "has another time" in told.stdout + told.stderr
    site.machine("verify", "acme", "--repair")
    assert shown(site.current) == shown(site.tree)


def test_byte_code_that_is_shipped_is_used(site):
    """Python believes a .pyc when it names the time of its source."""
    site.file("lib/one.py", b"x = 1\n", time=T)
    site.file("lib/two.py", b"x = 2\n", time=T + 77)
    assert compileall.compile_dir(site.tree / "lib", quiet=2)
    site.push("1.0.0")
    site.update()
    check = "import sys; sys.path[0] = sys.argv[1]; import one, two"
    argv = [sys.executable, "-v", "-c", check, site.current / "lib"]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    for name in ("one", "two"):
        assert f"lib/__pycache__/{name}" in done.stderr
        assert f"bytecode is stale for '{name}'" not in done.stderr
    assert "code object from" in done.stderr


def test_holes_arrive_as_holes(site):
    """In a whole bundle, in a delta, and where an old file is copied."""
    path = site.file("sparse")
    with path.open("r+b") as file:
        for place in range(8):
            file.seek(place * 2**21)
            file.write(os.urandom(4096))
        file.truncate(2**24 + 5)
    site.push("1.0.0")
    site.update()
    assert (site.current / "sparse").read_bytes() == path.read_bytes()
    most = 3 * path.stat().st_blocks
    assert (site.current / "sparse").stat().st_blocks <= most

    with path.open("r+b") as file:
        file.seek(2**20)
        file.write(b"more")
    site.push("1.1.0")
    site.update()
    assert (site.current / "sparse").read_bytes() == path.read_bytes()
    assert (site.current / "sparse").stat().st_blocks <= most

    site.file("another")
    site.push("1.2.0")
    site.update()
    assert (site.current / "sparse").stat().st_blocks <= most


def test_what_is_not_carried_is_refused_until_it_is_let_go(site):
    site.file("bin/su", mode=0o4755)
    site.file("bin/group", mode=0o2755)
    site.file("attributed")
    kinds = "setuid,setgid"
    try:
        os.setxattr(site.tree / "attributed", "user.note", b"x")
        kinds += ",xattr"
    except OSError:
        pass  # a file system without them

    done = site.push("1.0.0", expect=None)

    assert done.returncode == 1
    for kind in (*kinds.split(","), "--drop", "bin/su"):
        assert kind in done.stderr
    told = site.push("1.0.0", "--drop", kinds).stdout
    assert "not carried: programs that run as their owner (setuid): 'bin/su'" in told
    site.update()
    assert mode(site.current / "bin/su") == 0o755


def test_rights_to_write_are_never_carried_to_others(site):
    site.file("shared", mode=0o666)
    told = site.push("1.0.0").stdout
    assert "may write here arrive without that right" in told
    site.update()
    assert mode(site.current / "shared") == 0o644


def test_a_file_that_an_older_release_has_too_keeps_its_time_there(tmp_path):
    """With `unchanged = "hardlink"` two releases share a file, and its times."""
    site = Site(tmp_path, product_extra='unchanged = "hardlink"')
    site.file("same", b"y" * 9000)
    site.file("other", os.urandom(50_000))
    site.file("version", b"1")
    site.push("1.0.0")
    site.update()
    first = site.current
    site.file("same", b"y" * 9000, time=T + 100)
    site.file("version", b"2")
    site.push("1.1.0")
    site.update()
    assert shown(site.current) == shown(site.tree)
    assert int((first / "same").stat().st_mtime) == T
    assert (first / "other").stat().st_ino == (site.current / "other").stat().st_ino
    site.close()


def test_rights_of_the_next_release_are_not_given_to_the_last_one(tmp_path):
    """Hard links have one mode: the older release's file would be setuid, too."""
    site = Site(
        tmp_path,
        product_extra='unchanged = "hardlink"\nspecial_modes = ["setuid"]',
    )
    site.file("bin/su", b"x" * 9000, mode=0o711)
    site.file("bin/hidden", b"z" * 9000, mode=0o111)
    site.file("version", b"1")
    site.push("1.0.0")
    site.update()
    first = site.current
    site.file("bin/su", b"x" * 9000, mode=0o4711)
    site.file("bin/hidden", b"z" * 9000, mode=0o111, time=T + 100)
    site.file("version", b"2")
    site.push("1.1.0", "--carry", "setuid")
    site.update()
    assert shown(site.current) == shown(site.tree)
    assert 0o711 == stat.S_IMODE((first / "bin" / "su").stat().st_mode)
    site.machine("rollback", "acme")
    site.close()


def test_names_that_differ_by_case_are_told_and_refused_if_asked(site):
    site.file("README/a")
    site.file("readme/b")
    assert (
        "differ only by case" in site.push("1.0.0", "--strict-names", expect=1).stderr
    )
    assert "differ only by case" in site.push("1.0.0").stdout
    site.update()


@pytest.fixture
def venv(site):
    site.file("app.py", b"print('hello')\n")
    (site.tree / "bin").mkdir()
    (site.tree / "bin" / "python3").symlink_to("/usr/bin/python3")
    return site


def test_links_to_the_outside_are_refused_at_push_unless_asked(venv):
    assert "--outside-links" in venv.push("1.0.0", expect=1).stderr


def test_a_machine_refuses_links_to_the_outside_by_default(venv):
    venv.push("1.0.0", "--outside-links")
    done = venv.update(expect=None)
    assert done.returncode == 1
    assert "outside_links" in done.stderr
    assert not venv.machine.current.exists()
    # whoever does not know of such links is told that it must
    (path,) = (venv.ops / "public/targets/acme/releases/1.0.0").iterdir()
    document = json.loads(path.read_bytes())
    assert (2, ["outside"]) == (document["schema"], document["must_understand"])
    assert this_platform() in path.name
    assert manifests.parse(path.read_bytes()).attributes.outside


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/usr/bin/python3", "/usr/bin/python3"),
        ("/usr/bin/python3", "/usr/bin"),
        ("../../../../shared/data", "SHARED"),
    ],
)
def test_an_owner_may_allow_them(tmp_path, target, allowed):
    shared = tmp_path / "machine" / "opt" / "shared"
    allowed = allowed.replace("SHARED", str(shared))
    site = Site(tmp_path, product_extra=f'outside_links = ["{allowed}"]')
    site.file("app")
    (site.tree / "bin").mkdir()
    (site.tree / "bin" / "to").symlink_to(target)
    site.push("1.0.0", "--outside-links")
    site.update()
    assert os.readlink(site.current / "bin" / "to") == target
    site.machine("verify", "acme")
    (site.current / "bin" / "to").unlink()
    site.machine("verify", "acme", expect=1)
    site.close()


@pytest.mark.parametrize(
    "target",
    [
        "/etc/shadow",
        "/usr/bin2/x",
        "/usr/bin/../../etc/shadow",
        "/usr",
        "../../../../../../../../etc/shadow",
    ],
)
def test_but_only_where_they_allow(tmp_path, target):
    site = Site(tmp_path, product_extra='outside_links = ["/usr/bin"]')
    site.file("app")
    (site.tree / "to").symlink_to(target)
    site.push("1.0.0", "--outside-links")
    assert site.update(expect=None).returncode == 1
    assert not site.machine.current.exists()
    site.close()


def test_rights_beyond_the_owners_are_refused_by_default(site):
    site.file("bin/su", mode=0o4755)
    site.push("1.0.0", "--carry", "setuid")
    done = site.update(expect=None)
    assert done.returncode == 1
    assert "special_modes" in done.stderr
    assert not site.machine.current.exists()


def test_an_owner_may_allow_rights(tmp_path):
    """They are set last, seen by `verify`, and kept by the next release."""
    kinds = "setuid,setgid,sticky,writable"
    allowed = str(kinds.split(",")).replace("'", '"')
    site = Site(tmp_path, product_extra=f"special_modes = {allowed}")
    site.file("bin/su", b"x" * 9000, mode=0o4711)
    site.file("shared/note", mode=0o664)
    (site.tree / "shared").chmod(0o3775)
    site.push("1.0.0", "--carry", kinds)
    site.update()
    assert shown(site.current) == shown(site.tree)
    site.machine("verify", "acme")
    site.file("version", b"2")
    site.push("1.1.0", "--carry", kinds)
    site.update()
    assert shown(site.current) == shown(site.tree)
    (site.current / "bin" / "su").chmod(0o6755)
    site.machine("verify", "acme", expect=1)
    site.machine("verify", "acme", "--repair")
    assert shown(site.current) == shown(site.tree)
    site.close()
