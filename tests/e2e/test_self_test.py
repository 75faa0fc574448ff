# SPDX-License-Identifier: Apache-2.0
"""A release that says that it does not work here is never switched to."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.machine import Machine
from fakes.trees import make_tree
from fakes.waiting import eventually

import updaterd

pytestmark = pytest.mark.usefixtures("as_typed")

SELF_TEST = Path(__file__).parents[2] / "packaging/private/self_test.py"

# runs the staged release's own test, as /usr/lib/updaterd/self-test does for updaterd
ASK = ["/bin/sh", "-c", 'exec "$UPDATERD_RELEASE/bin/works-here"']


@pytest.fixture
def machine(tmp_path, site):
    found = Machine(
        tmp_path / "machine",
        feed=site.feed_url,
        repository=f"{site.address}/repo",
        bootstrap=site.bootstrap,
        product_extra=f"hooks = {{ self_test = {json.dumps(ASK)}, timeout_s = 1 }}",
    )
    yield found
    found.stop()


def release(tmp_path, version, test):
    return make_tree(
        tmp_path / "build" / version,
        {"bin/works-here": f"#!/bin/sh\n{test}\n", "V": version},
    )


def test_failing_it_is_a_verdict_before_anything_moves(tmp_path, site, machine):
    """The daemon refuses the release, says why, and takes the next one."""
    site.push(release(tmp_path, "1.0.0", "exit 0"), "1.0.0")
    machine.start()
    machine.wait_for("1.0.0")
    link = machine.current.lstat().st_ino
    site.push(release(tmp_path, "1.1.0", "echo no libfoo.so.9; exit 1"), "1.1.0")

    def refused():
        last = machine.product_status()["last"]
        return last if last["version"] == "1.1.0" else None

    last = eventually(refused, event=machine.log())
    assert ("REJECTED", "self_test_failed") == (last["state"], last["code"])
    assert "fails its self-test: exit code 1: no libfoo.so.9" in last["reason"]
    eventually(lambda: "release_rejected product=acme" in machine.log())
    assert link == machine.current.lstat().st_ino
    steps = machine("history", "acme", "--steps", "--limit", "1").stdout
    assert "staged" in steps
    assert "activating" not in steps
    assert 20 == machine("status", expect=None).returncode

    site.push(release(tmp_path, "1.2.0", "exit 0"), "1.2.0")
    machine.wait_for("1.2.0")


@pytest.mark.parametrize("test", ["exec sleep 60", "kill -KILL $$", "exit 75"])
def test_no_answer_is_no_verdict(tmp_path, site, machine, test):
    """Out of time or killed from outside says nothing: it is asked again."""
    site.push(release(tmp_path, "1.0.0", test), "1.0.0")

    done = machine("update", "acme", expect=1)

    assert "hook self_test of acme" in done.stderr
    found = machine.product_status()
    assert "STAGED" == found["deployment"]["state"]
    assert found["next_attempt_at"] is not None
    assert machine.running is None


def test_updaterd_knows_whether_it_works(machine):
    """Its own: everything it needs is there, and the configuration can be used."""
    done = machine("self-test")
    assert "works here" in done.stdout.splitlines()[-1]
    machine.config.write_text("[feed]\n")
    done = machine("self-test", expect=1)
    assert "cannot use the configuration" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("part", "sabotage"),
    [
        ("pipeline/update.py", 'def update(*_): raise RuntimeError("born broken")'),
        ("artifact/worker/child.py", 'def make(*_): raise RuntimeError("born broken")'),
    ],
)
def test_release_whose_worker_cannot_work_says_so(machine, tmp_path, part, sabotage):
    """All its parts load; but it could never bring its own successor."""
    tree = tmp_path / "release"
    shutil.copytree(
        Path(updaterd.__file__).parent,
        tree / "updaterd",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    with (tree / "updaterd" / part).open("a") as file:
        file.write(f"\n\n{sabotage}\n")
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            (
                "import sys, runpy; "
                f"sys.path.insert(0, {str(Path(SELF_TEST).parent)!r}); "
                f"runpy.run_path({str(SELF_TEST)!r}, run_name='__main__')"
            ),
        ],
        env={
            **os.environ,
            "UPDATERD_RELEASE": str(tree),
            "CONFIGURATION_DIRECTORY": str(machine.config.parent),
            "HTTP_PROXY": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert 1 == done.returncode, done.stderr
    assert "cannot install and update" in done.stderr.splitlines()[-1]


def test_a_part_that_is_missing_is_named():
    """As on a Python for which the release brings no native libraries."""
    code = (
        "import sys; sys.modules['cryptography'] = None; "
        "from updaterd.cli import main; sys.exit(main(['self-test']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 1 == done.returncode
    assert "cryptography" in done.stderr
