"""A sample of the kill points; `python tests/faults/killpoints.py --all` has all."""

import importlib.util
import sys
from pathlib import Path

import pytest
from fakes.tools import need, refuse

_SPEC = importlib.util.spec_from_file_location(
    "killpoints", Path(__file__).with_name("killpoints.py")
)
killpoints = sys.modules["killpoints"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(killpoints)

SAMPLE = 24
"""Points a bench: with two benches about a minute."""


@pytest.fixture(scope="module", params=[True, False], ids=["healthy", "unhealthy"])
def bench(request, tmp_path_factory):
    need("strace")
    killpoints.warm_up()
    found = killpoints.Bench(tmp_path_factory.mktemp("bench"), healthy=request.param)
    yield found
    found.close()


def test_update_survives_kills_and_a_failing_disk(bench):
    """At a spread of file-changing calls: killed, disk full or broken, then whole."""
    calls = bench.calls()
    if not calls:
        refuse("strace sees nothing here (is ptrace forbidden?)")
    assert 150 < len(calls)  # or the traced run did not do what it should
    step = len(calls) * len(killpoints.MODES) // SAMPLE
    chosen = list(killpoints.points(calls, step=step))
    assert set(killpoints.MODES) == {point.mode for point in chosen}

    problems = {str(point): bench.problems(point) for point in chosen}

    assert {} == {point: found for point, found in problems.items() if found}


def test_harness_sees_a_mixed_tree_and_an_open_deployment(bench):
    """Negative control: damage of each kind is noticed."""
    bench.reset()
    assert [] == bench.broken_tree()
    (bench.machine.current / "lib" / "changing.bin").write_bytes(b"mixed")
    (bench.machine.app / ".updaterd" / "stage-x").mkdir()

    assert bench.broken_tree()
    assert [] != bench.unsettled(bench.target)
