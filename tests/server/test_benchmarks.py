# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, and what they promise holds in the small."""

import subprocess
import sys
from pathlib import Path

from fakes.tools import need

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_reconnect_storm_peaks_below_one_and_a_half_times_the_capacity():
    """Simulated with the client's own backoff and the server's own admission."""
    done = run("storm.py", "--small")
    assert done.returncode == 0, done.stdout + done.stderr


def test_fan_out_loses_and_repeats_nothing():
    """A few hundred streams read by the C reader, both sinks."""
    need("gcc")
    servers = "updaterd-fast,updaterd-asgi"
    options = ("--streams", "300", "--events", "20", "--quick", "--servers", servers)
    done = run("feed.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "at most" in done.stdout  # the aims, and whether they were reached


def test_replicas_lose_and_repeat_nothing():
    """Three over one Redis, announcements to each in turn."""
    need("gcc")
    need("redis-server")
    done = run("feed_replicas.py", "--streams", "300", "--events", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost, doubled, disordered: 0" in done.stdout
