"""A sample of the kill points; `python tests/faults/killpoints.py --all` has all."""

import importlib.util
import sys
from pathlib import Path

import pytest
from fakes.bench import Bench, warm_up
from fakes.tools import need, refuse

_SPEC = importlib.util.spec_from_file_location(
    "killpoints", Path(__file__).with_name("killpoints.py")
)
killpoints = sys.modules["killpoints"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(killpoints)

BENCHES = {
    "update": ({}, 70),
    "rolled-back": ({"healthy": False}, 35),
    "first": ({"first": True}, 25),
}
"""What happens, and how many points of it: about two minutes in all."""
IN_RECOVERY = 5
"""Points in the recovery from each state."""


def calls_of(bench):
    found = killpoints.calls(bench)
    if not found:
        refuse("strace sees nothing here (is ptrace forbidden?)")
    return found


def sample(points, count):
    """Spread evenly, and the same each time: a failure can be repeated."""
    return [points[len(points) * n // count] for n in range(count)]


@pytest.fixture
def bench(request, tmp_path):
    need("strace")
    warm_up()
    found = Bench(tmp_path / "bench", **getattr(request, "param", {}))
    yield found
    found.close()


@pytest.mark.parametrize(
    ("bench", "count"), BENCHES.values(), ids=BENCHES, indirect=["bench"]
)
def test_update_survives_kills_and_a_failing_disk(bench, count):
    """At a spread of file-changing calls: killed, disk full or broken, then whole."""
    found = calls_of(bench)
    assert 250 < len(found)  # or the traced run did not do what it should
    chosen = killpoints.points(found, step=5 * len(found) // count)
    assert set(killpoints.MODES) <= {point.mode for point in chosen}
    assert {"worker", "opener"} == {point.where for point in chosen}

    problems = {str(point): killpoints.problems(bench, point) for point in chosen}

    assert {} == {point: found for point, found in problems.items() if found}


def test_recovery_survives_kills(bench):
    """Whatever state a dead run left: its recovery is killed, the next one is well."""
    calls_of(bench)
    tried, problems = set(), {}
    for state, points in killpoints.recovery_points(bench, modes=("kill",)):
        tried.add(state)
        for point in sample(points, IN_RECOVERY):
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


def test_harness_sees_a_fault_that_does_not_come(bench):
    """Negative control: a call that is never made is no point that was survived."""
    (found,) = killpoints.problems(
        bench, killpoints.Point("worker", "fsync", 9999, "kill")
    )

    assert "did not come" in found
