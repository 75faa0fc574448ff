# SPDX-License-Identifier: Apache-2.0
"""Roots below somebody else's folder, links to elsewhere, trees of the system.

The daemon's user works for the owner of the machine; others on it move what they may.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

import pytest
from fakes.people import APPLICATION, DAEMON, STRANGER, at_work, give, give_all, run_as
from fakes.repository import Publisher
from fakes.trees import snapshot

from updaterd.core.settings import Product
from updaterd.files import roots

COMMAND = (sys.executable, "-I", "-m", "updaterd")
UNREACHABLE = "http://127.0.0.1:9"


@functools.cache
def first_root() -> bytes:
    """Return a repository's first root, which every machine is given."""
    with tempfile.TemporaryDirectory() as folder:
        space = Publisher(Path(folder) / "ops").space
        return (space.public / "metadata" / "1.root.json").read_bytes()


class Box:
    """A machine with two products, below one folder of root's."""

    def __init__(self, ground: Path):
        self.ground = ground
        self.opt = ground / "opt"
        self.opt.mkdir()
        (ground / "root.json").write_bytes(first_root())
        for name in ("state", "cache", "run"):
            (ground / name).mkdir()
            give(ground / name, DAEMON)
        self.roots = {"acme": self.opt / "acme"}

    def installed(self, name: str, *versions: str, owner: int = DAEMON) -> Path:
        root = self.opt / name
        for version in versions:
            (root / "releases" / version).mkdir(parents=True)
            (root / "releases" / version / "VERSION").write_text(f"{name} {version}")
        (root / "current").symlink_to(f"releases/{versions[-1]}")
        return give_all(root, owner)

    def __call__(self, *words: object, uid: int = DAEMON, expect: int | None = None):
        config = self.ground / "updaterd.toml"
        config.write_text(
            f'[feed]\nurl = "{UNREACHABLE}/v1/events"\n'
            f'[trust]\nroot = "{self.ground}/root.json"\n'
            f'repository = "{UNREACHABLE}/repo"\n'
            + "".join(
                f'[products.{name}]\nroot = "{root}"\nkeep = 1\n'
                for name, root in self.roots.items()
            )
        )
        places = [f"--{n}-dir={self.ground / f}" for n, f in (
            ("state", "state"), ("cache", "cache"), ("runtime", "run"))]  # fmt: skip
        return run_as(
            uid,
            *COMMAND,
            *words,
            f"--config={config}",
            *places,
            "--demo",
            expect=expect,
        )

    def refused(self, *said: str, uid: int = DAEMON) -> None:
        """Check that neither the check nor a run takes the root of acme."""
        check = self("config", "check", "--offline", uid=uid, expect=1)
        done = self("update", "acme", "--json", uid=uid, expect=1)
        assert "unsafe_root" == json.loads(done.stdout)["code"]
        for words in said:
            assert words in check.stderr
            assert words in done.stderr


CHECK = """
import json, sys
from pathlib import Path
from updaterd.files import roots
from updaterd.core.settings import Product
found = {}
for root in sys.argv[1:]:
    try:
        roots.check(Product(name="acme", root=Path(root)))
    except roots.UnsafeRootError as error:
        found[root] = str(error)
print(json.dumps(found))
"""


def refused_as(uid: int, *roots: object) -> dict[str, str]:
    """Return what each run of that user would say of the roots that it refuses."""
    return json.loads(run_as(uid, sys.executable, "-I", "-c", CHECK, *roots).stdout)


@pytest.fixture
def box(ground):
    return Box(ground)


def test_what_is_the_daemons_own_is_taken(box):
    """The other tests show something only beside this one."""
    box.installed("acme", "1.0")
    box("config", "check", "--offline", expect=0)
    assert "unsafe" not in box("update", "acme", "--json", expect=1).stdout
    assert not refused_as(DAEMON, box.opt / "new")  # `config grant` makes it


def test_a_parent_that_another_user_may_write(box):
    (box.opt / "joe").mkdir()
    give(box.opt / "joe", STRANGER)
    box.roots["acme"] = box.opt / "joe" / "acme"
    box.refused(f"{box.opt}/joe belongs to user {STRANGER}")
    give(box.opt / "joe", 0, 0o777)
    (said,) = refused_as(DAEMON, box.roots["acme"]).values()
    assert f"every user may write {box.opt}/joe" in said


def test_a_name_in_a_shared_folder_that_another_took_first(box):
    """In /tmp whoever comes first owns it; nobody does yet: others may be faster."""
    (box.opt / "all").mkdir()
    give(box.opt / "all", 0, 0o1777)
    root = box.opt / "all" / "acme"
    (said,) = refused_as(DAEMON, root).values()
    assert f"every user may write {box.opt}/all" in said
    root.mkdir()
    for owner in (STRANGER, APPLICATION):
        give(root, owner)
        (said,) = refused_as(DAEMON, root).values()
        assert f"{root} belongs to user {owner}" in said
    give(root, DAEMON)
    assert not refused_as(DAEMON, root)


def test_a_planted_link_above_the_root(box):
    """In the stranger's folder; and one that root made of it is as bad."""
    box.installed("acme", "1.0")
    (box.opt / "joe").mkdir()
    give(box.opt / "joe", STRANGER)
    (box.opt / "joe" / "link").symlink_to(box.opt)
    (box.opt / "roots").symlink_to(box.opt / "joe" / "link")
    bad = [box.opt / "joe" / "link" / "acme", box.opt / "roots" / "acme"]
    found = refused_as(DAEMON, *bad)
    assert all(f"{box.opt}/joe belongs to user" in found[str(root)] for root in bad)


def test_a_link_of_roots_own_is_followed(box):
    box.installed("acme", "1.0")
    (box.ground / "srv").symlink_to("opt")
    assert not refused_as(DAEMON, box.ground / "srv" / "acme")


@pytest.mark.parametrize("name", ["releases", ".updaterd"])
def test_a_folder_of_the_root_that_leads_to_another_products(box, name):
    """Its running release would be replaced, then deleted."""
    box.installed("acme", "1.0")
    other = box.installed("other", "1.0", "2.0")
    (other / ".updaterd").mkdir()
    give(other / ".updaterd", DAEMON, 0o700)
    before = snapshot(other)
    if name == "releases":
        shutil.rmtree(box.opt / "acme" / name)
    (box.opt / "acme" / name).symlink_to(other / name)
    box("update", "acme", expect=1)
    (said,) = refused_as(DAEMON, box.opt / "acme").values()
    assert f"{box.opt}/acme/{name} is a link" in said
    assert before == snapshot(other)


@pytest.mark.parametrize("kind", ["stranger", "everybody", "file", "fifo", "socket"])
def test_what_stands_in_place_of_a_folder_of_the_root(box, kind):
    """Nothing is opened that could wait, nothing is built where others may write."""
    paths = {}
    for name in ("", "releases", ".updaterd"):
        root = box.installed(f"acme{name}", "1.0")
        paths[str(root)] = path = root / name if name else root
        if kind in ("stranger", "everybody"):
            path.mkdir(exist_ok=True)
            give(path, *((STRANGER, 0o755) if kind == "stranger" else (DAEMON, 0o777)))
        else:
            if path.is_dir():
                shutil.rmtree(path)
            make(path, kind)
            give(path, DAEMON)
    found = refused_as(DAEMON, *paths)
    assert found.keys() == paths.keys()
    assert all(str(path) in found[root] for root, path in paths.items())


def make(path: Path, kind: str) -> None:
    """Make what is no folder; the socket by a process that is gone again."""
    if kind == "file":
        path.write_text("")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        code = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
        subprocess.run([sys.executable, "-IS", "-c", code, path], check=True)


@pytest.mark.parametrize("uid", [0, DAEMON], ids=["root", "daemon"])
def test_roots_of_the_system_are_refused_by_name(uid):
    """Run by root nothing else would stop it: entries of /var/lib were deleted."""
    system = [
        *("/var/lib/dpkg", "/var/lib/polkit-1", "/var/spool/cron", "/var/lib/systemd"),
        *("/etc/acme", "/usr/lib/acme", "/boot/acme", "/var/log/acme", "/var/cache/x"),
        *("/opt", "/srv", "/var/lib", "/", "/usr/local", "/usr/local/bin"),
        *("/var/lib/updaterd", "/lib/acme", "/proc/self/root/etc/acme"),
    ]
    taken = ["/opt/acme", "/srv/acme", "/var/lib/acme", "/usr/local/acme", "/acme"]
    assert system == list(refused_as(uid, *system, *taken))


def test_the_systems_package_list_as_a_root(box):
    """As root typed it: `config check`, `config grant` and each run refuse."""
    for name in ("state", "cache", "run"):
        give(box.ground / name, 0)
    box.roots["acme"] = "/var/lib/dpkg"
    box.refused("/var/lib/dpkg is the system's", uid=0)
    grant = box("config", "grant", uid=0, expect=1)
    assert "/var/lib/dpkg is the system's" in grant.stderr


def test_a_full_folder_in_var_lib_that_nobody_listed(ground):
    """A name list is never whole: what holds others' files is not a product's."""
    folder = Path("/var/lib/a-strangers-for-updaterds-test")
    folder.mkdir()
    try:
        product = Product(name="acme", root=folder)
        assert folder == roots.check(product)
        (folder / "data").write_text("")
        with pytest.raises(roots.UnsafeRootError, match="holds 'data'"):
            roots.check(product)
        (folder / "releases").mkdir()
        assert folder == roots.check(product)
    finally:
        shutil.rmtree(folder)


def test_root_never_works_in_a_tree_that_the_daemons_user_may_write(box):
    """`--state-dir` makes root stay root: it would follow that user's links."""
    box.installed("acme", "1.0")
    for name in ("state", "cache", "run"):
        shutil.rmtree(box.ground / name)
        (box.ground / name).mkdir()
    done = box("update", "acme", "--json", uid=0, expect=1)
    found = json.loads(done.stdout)
    assert "unsafe_root" == found["code"]
    assert f"belongs to user {DAEMON}" in found["reason"]


@pytest.mark.parametrize("spelling", ["bind", "inside", "releases", "link"])
def test_two_products_never_share_a_tree_whatever_the_spelling(box, spelling):
    acme, other = box.installed("acme", "1.0"), box.opt / "other"
    products = [Product(name="acme", root=acme), Product(name="other", root=other)]
    if spelling == "link":
        other.symlink_to(acme)
        assert roots.shared(products)
        return
    (other / "releases").mkdir(parents=True)
    assert not roots.shared(products)
    source = {"inside": acme / "releases" / "1.0", "releases": acme / "releases"}
    target = other / "releases" if spelling == "releases" else other
    subprocess.run(["mount", "--bind", source.get(spelling, acme), target], check=True)
    try:
        (said,) = roots.shared(products)
    finally:
        subprocess.run(["umount", target], check=True)
    assert "products.acme and products.other share" in said


SWAPPER = """
import os, sys
folder, victim = sys.argv[1:]
print("up", flush=True)
while True:
    os.rename(folder + "/acme", folder + "/kept")
    os.symlink(victim, folder + "/acme")
    os.unlink(folder + "/acme")
    os.rename(folder + "/kept", folder + "/acme")
"""


def test_a_racer_swaps_the_root_for_a_link(box, racing_s):
    """In his own folder he may, at any speed: it is refused each time, and nothing of
    the other product changes.
    """
    victim = box.installed("victim", "1.0", "2.0")
    before = snapshot(victim)
    joe = box.opt / "joe"
    joe.mkdir()
    give(joe, STRANGER)
    give_all(Path(shutil.copytree(victim, joe / "acme", symlinks=True)), DAEMON)
    box.roots["acme"] = joe / "acme"
    with at_work(STRANGER, SWAPPER, joe, victim):
        end = monotonic() + racing_s
        rounds = 0
        while monotonic() < end or not rounds:
            done = box("update", "acme", "--json")
            if "unsafe_root" not in done.stdout:  # just not there, or no link
                assert done.returncode
                assert "refused: [Errno" in done.stderr
            rounds += 1
    assert before == snapshot(victim)
