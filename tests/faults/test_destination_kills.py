# SPDX-License-Identifier: Apache-2.0
"""A sample of killed deliveries; `python tests/faults/destinations.py` has all."""

import importlib.util
import sys
from pathlib import Path

import pytest
from fakes.deliveries import FOLDERS, SyncToBucket
from fakes.starter import import_everything
from fakes.tools import need

_SPEC = importlib.util.spec_from_file_location(
    "killpoints", Path(__file__).with_name("killpoints.py")
)
killpoints = sys.modules["killpoints"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(killpoints)


@pytest.fixture
def bucket(tmp_path):
    import_everything()
    bench = SyncToBucket(tmp_path / "bench")
    yield bench
    bench.close()
    bench.cloud.close()


def test_a_client_of_a_bucket_is_right_whatever_request_was_the_last(bucket):
    """The pointer's own, and one before it; the publisher dies, or goes on."""
    requests = bucket.count()
    for number, mode in (
        (requests // 2, "after"),
        (requests, "after"),
        (requests, "lost"),
    ):
        assert bucket.interrupted(number, mode) == [], f"{number} of {requests}: {mode}"


def test_a_client_of_a_directory_is_right_whatever_call_was_the_last(tmp_path):
    need("strace")
    import_everything()
    bench = FOLDERS["gc-at"](tmp_path / "bench")
    try:
        points = killpoints.points(killpoints.calls(bench), modes=("kill",))
        assert len(points) > 10
        for point in points[:: len(points) // 3]:
            assert killpoints.problems(bench, point) == [], str(point)
    finally:
        bench.close()
