# SPDX-License-Identifier: Apache-2.0
"""One descriptor in each old release, and the disk fills? Only for who has a say."""

import json
import os
import pwd
import sys
import time
from contextlib import ExitStack

import pytest
from fakes.people import APPLICATION, DAEMON, STRANGER, at_work, give_all, run_as

from updaterd.core.settings import Product
from updaterd.install import holders
from updaterd.install.prune import MOST_OF_OTHERS

OLD = ("1", "2", "3", "4", "5")
OPENED = (
    "import sys; f = [open(p) for p in sys.argv[1:]]; print('up', flush=True); input()"
)
PRUNE = """
import json, sys
from pathlib import Path
from updaterd.install.holders import Holders
from updaterd.install.prune import prune
root, order, uids, unseen, proc = sys.argv[1:]
old = prune(
    Path(root), tuple(order.split()), keep=1, proc=Path(proc),
    holders=Holders(frozenset(map(int, uids.split())), unseen == "True"),
)
print(json.dumps({"free": old.free, "busy": old.busy}))
"""


@pytest.fixture
def root(ground):
    found = ground / "acme"
    for version in (*OLD, "6"):
        (found / "releases" / version).mkdir(parents=True)
        (found / "releases" / version / "VERSION").write_text(version)
    (found / "current").symlink_to("releases/6")
    return give_all(found, DAEMON)


@pytest.fixture(params=["seen", "hidden"])
def proc(request, ground):
    """What the daemon sees of others: their processes, or (as packaged) none."""
    (ground / "proc").mkdir()
    return "/proc" if request.param == "seen" else ground / "proc"


def pruned(root, proc, *, uid=DAEMON, uids=(), unseen=False):
    order = " ".join(sorted(os.listdir(root / "releases"), reverse=True))
    words = (root, order, " ".join(map(str, (0, DAEMON, *uids))), unseen, proc)
    done = run_as(uid, sys.executable, "-I", "-c", PRUNE, *words)
    return json.loads(done.stdout)


def files(root):
    return [root / "releases" / version / "VERSION" for version in OLD]


def test_a_strangers_descriptor_in_each_old_release(root, proc):
    with at_work(STRANGER, OPENED, *files(root)):
        found = pruned(root, proc)
        left = sorted(os.listdir(root / "releases"))
        again = pruned(root, proc)
    assert ["1", "2", "3"] == sorted(found["free"])
    assert ["4", "5", "6"] == left
    assert [] == again["free"]
    assert MOST_OF_OTHERS == len(found["busy"])
    assert all("without a say" in why for why in found["busy"].values())
    pruned(root, proc)
    assert ["6"] == os.listdir(root / "releases")
    assert [] == list((root / ".updaterd").glob("trash-*"))


def test_a_process_named_as_if_it_ran_from_current(root):
    name = f"{root}/current/x"
    code = "import sys; print('up', flush=True); input()"
    with at_work(STRANGER, code, name):
        wait_for_the_next_tick()
        (root / "current").unlink()  # it moves after the process was started
        (root / "current").symlink_to("releases/6")
        found = pruned(root, "/proc", uid=0)
    assert ["1", "2", "3"] == sorted(found["free"])


def wait_for_the_next_tick():
    """A start is told in ticks of the kernel: be sure to be after it."""
    end = time.clock_gettime(time.CLOCK_BOOTTIME) + 3 / os.sysconf("SC_CLK_TCK")
    while time.clock_gettime(time.CLOCK_BOOTTIME) < end:
        os.sched_yield()


@pytest.mark.parametrize("uid", [0, DAEMON], ids=["root", "daemon"])
def test_the_applications_own_processes_keep_them_all(root, uid):
    """Told by the user; where nobody is seen, by a unit that is old enough."""
    if uid == 0:
        give_all(root, 0)
    with at_work(APPLICATION, OPENED, *files(root)):
        seen = uid == 0
        found = pruned(root, "/proc", uid=uid, uids=[APPLICATION], unseen=not seen)
    assert [] == found["free"]
    assert set(OLD) == found["busy"].keys()


def test_a_set_user_id_program_of_a_strangers(root):
    """It is root's by its rights, and the stranger's by who started it."""
    code = (
        "import os, sys; os.setresuid(int(sys.argv[1]), 0, 0);"
        "f = [open(p) for p in sys.argv[2:]]; print('up', flush=True); input()"
    )
    give_all(root, 0)
    with at_work(0, code, STRANGER, *files(root)):
        found = pruned(root, "/proc", uid=0)
    assert ["1", "2", "3"] == sorted(found["free"])


def test_many_strangers_are_bounded_together(root, proc):
    with ExitStack() as stack:
        for uid, file in zip(
            (STRANGER, STRANGER + 7, STRANGER + 8), files(root)[:3], strict=True
        ):
            stack.enter_context(at_work(uid, OPENED, file))
        found = pruned(root, proc)
    assert sorted(found["free"]) == ["1", "4", "5"]
    assert found["busy"].keys() == {"2", "3"}


def unit(**changes):
    return {"ActiveState": "active", "InactiveExitTimestampMonotonic": "1", **changes}


def test_whose_processes_count_is_asked_of_systemd(root):
    """The user of a unit by name, a dynamic one by number; none that there is not."""
    told = {
        "a.service": unit(User="daemon"),
        "b.service": unit(User="acme-made-up", UID=str(APPLICATION)),
        "c.service": unit(User="", UID="4294967295", ActiveState="inactive"),
    }
    product = Product(name="acme", root=root, units=tuple(told), users=(str(STRANGER),))
    asked = []

    def ask(name, names):
        asked.append(name)
        return told.get(name, {"ActiveState": "inactive"})

    found = holders.find(product, ask)
    daemon = pwd.getpwnam("daemon").pw_uid
    assert {0, daemon, APPLICATION, STRANGER} == found.uids
    assert [*told, f"user-{STRANGER}.slice"] == asked
    assert not found.unseen  # root sees everybody


AS_DAEMON = """
import json, sys
from pathlib import Path
from updaterd.core.settings import Product
from updaterd.install import holders
told = json.loads(sys.argv[2])
product = Product(name="acme", root=Path(sys.argv[1]), units=("a.service",))
print(holders.find(product, lambda *_: told).unseen)
"""


@pytest.mark.parametrize(
    ("changes", "unseen"),
    [({}, True), ({"InactiveExitTimestampMonotonic": str(2**60)}, False),
     ({"ActiveState": "failed"}, False)],
)  # fmt: skip
def test_a_unit_that_was_there_before_current_moved_may_hold_what_is_not_seen(
    root, changes, unseen
):
    told = json.dumps(unit(**changes))
    words = (sys.executable, "-I", "-c", AS_DAEMON, root, told)
    assert str(unseen) == run_as(DAEMON, *words).stdout.strip()
