# SPDX-License-Identifier: Apache-2.0
"""A sample of kitpoints.py: an installer that was killed is finished by the next."""

import importlib.util
import sys
from pathlib import Path

import pytest
from fakes.tools import need, refuse

_SPEC = importlib.util.spec_from_file_location(
    "kitpoints", Path(__file__).with_name("kitpoints.py")
)
kitpoints = sys.modules["kitpoints"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kitpoints)

SAMPLE = 5


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    need("strace")
    return kitpoints.Person(tmp_path_factory.mktemp("kit"))


@pytest.mark.parametrize("verb", ["install", "remove"])
def test_killed_anywhere_the_next_run_finishes_it(person, verb):
    points = person.calls(verb)
    if not points:
        refuse("strace sees nothing here (is ptrace forbidden?)")
    chosen = points[:: max(1, len(points) // SAMPLE)]

    found = {str(point): person.problem(verb, point) for point in chosen}

    assert {} == {point: text for point, text in found.items() if text}


def test_a_power_cut_leaves_no_updaterd_that_only_looks_whole(person):
    """The next run takes what has its name as it is: it has to be on the disk."""
    person.reset("install")
    log = person.folder / "trace"
    log.touch()
    log.chmod(0o666)
    only = "trace=?sync,?rename,?renameat,?renameat2"
    person.run("--user", around=("strace", "-o", log, "-e", only))
    lines = log.read_text(errors="replace").splitlines()
    named = [at for at, line in enumerate(lines) if "/runtime/.new-" in line]
    if not named:
        refuse("strace sees nothing here (is ptrace forbidden?)")
    (last,) = (at for at in named if "/runtime/.new-" not in lines[at].split(", ")[-1])
    assert lines[last - 1].startswith("sync()")
