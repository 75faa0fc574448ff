# SPDX-License-Identifier: Apache-2.0
"""A sample of the kill points; `python tests/faults/killpoints.py --all` has all."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from fakes.campaigns import CAMPAIGNS
from fakes.starter import import_everything
from fakes.tools import need, refuse

_SPEC = importlib.util.spec_from_file_location(
    "killpoints", Path(__file__).with_name("killpoints.py")
)
killpoints = sys.modules["killpoints"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(killpoints)

COUNTS = {
    "update": 11, "unhealthy": 6, "first": 6, "rollback": 6, "repair": 6,
    "adopt": 6, "remove": 6, "hold": 6, "push": 6, "take": 6, "serve": 6,
}  # fmt: skip
"""How many points of each campaign; `killpoints.py --all` tries every one."""
IN_RECOVERY = 1
"""Points in the recovery from each state, here at its start, there in its middle."""


def calls_of(bench):
    found = killpoints.calls(bench)
    if not found:
        refuse("strace sees nothing here (is ptrace forbidden?)")
    return found


def sample(points, count, turn):
    """Spread evenly, and the same each time: a failure can be repeated.

    In odd turns the points are those between the points of even ones.
    """
    halves = range(turn % 2, 2 * count, 2)
    return [points[len(points) * half // (2 * count)] for half in halves]


@pytest.fixture
def bench(request, tmp_path):
    need("strace")
    import_everything()
    found = CAMPAIGNS[getattr(request, "param", "update")](tmp_path / "bench")
    yield found
    found.close()


def test_every_campaign_is_sampled():
    assert set(CAMPAIGNS) == set(COUNTS)


@pytest.mark.parametrize(
    ("bench", "count"), COUNTS.items(), ids=COUNTS, indirect=["bench"]
)
def test_survives_kills_and_a_failing_disk(bench, count):
    """At a spread of file-changing calls: killed, disk full or broken, then whole."""
    found = calls_of(bench)
    assert 20 < len(found)  # or the traced run did not do what it should
    chosen = killpoints.points(found, step=5 * len(found) // count)
    assert set(killpoints.MODES) <= {point.mode for point in chosen}
    missed = {point.where for point in found} - {point.where for point in chosen}
    every = killpoints.points(found)
    chosen += [next(p for p in every if p.where == where) for where in missed]

    problems = {str(point): killpoints.problems(bench, point) for point in chosen}

    assert {} == {point: found for point, found in problems.items() if found}


def test_recovery_survives_kills(bench):
    """Whatever state a dead run left: its recovery is killed, the next one is well."""
    calls_of(bench)
    tried, problems = set(), {}
    states = killpoints.recovery_points(bench, modes=("kill",))
    for turn, (state, points) in enumerate(states):
        tried.add(state)
        for point in sample(points, IN_RECOVERY, turn):
            if found := killpoints.problems(bench, point):
                problems[f"recovery from {state}, {point}"] = found

    assert {} == problems
    assert {"FETCHING", "STAGING", "STAGED", "ACTIVATING", "PROBATION"} <= tried


def test_harness_sees_a_mixed_tree_and_an_open_deployment(bench):
    """Negative control: damage of each kind is noticed."""
    bench.reset()
    assert [] == bench.broken_tree()
    (bench.machine.current / "lib" / "changing.bin").write_bytes(b"mixed")
    (bench.machine.app / ".updaterd" / "stage-x").mkdir()

    assert bench.broken_tree()
    assert [] != bench.unsettled(bench.target)


@pytest.mark.parametrize("bench", ["rollback"], indirect=True)
def test_harness_sees_a_roll_back_that_was_not_done(bench):
    """Negative control: what a person was told is compared with what runs."""
    bench.reset()

    assert ["the roll back said that it was done, and 1.1.0 runs"] == bench.settle(0)


@pytest.mark.parametrize("bench", ["serve"], indirect=True)
def test_harness_sees_a_lost_announcement(bench):
    """Negative control: the log of the confirmed ones is put back."""
    bench.reset()
    assert 0 == bench.run()
    shutil.copytree(bench.before, bench.site.state, dirs_exist_ok=True)

    (found,) = bench.settle(0)

    assert "confirmed, and not served" in found


def test_harness_sees_a_fault_that_does_not_come(bench):
    """Negative control: a call that is never made is no point that was survived."""
    (found,) = killpoints.problems(
        bench, killpoints.Point("worker", "fsync", 9999, "kill")
    )

    assert "did not come" in found
