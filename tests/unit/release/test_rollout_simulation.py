# SPDX-License-Identifier: Apache-2.0
"""A sample of benchmarks/rollout.py: what a guarded rollout is for."""

import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "benchmarks/rollout.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("rollout_simulation", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("rate", "share"), [(1.0, 0.005), (0.05, 0.01)])
def test_a_release_that_fails_reaches_few_before_it_halts(simulation, rate, share):
    row = simulation.scene(20_000, rate, 1)
    assert row["halted"] == 1
    assert row["most"] <= share * 20_000


def test_a_good_release_is_not_halted(simulation):
    assert simulation.scene(20_000, 0.001, 3, stop=1)["halted"] == 0


def test_without_reports_a_release_stays_in_its_first_step(simulation):
    row = simulation.scene(20_000, 1.0, 1, trouble="no reports")
    assert row["most"] <= 0.01 * 20_000 + 60
