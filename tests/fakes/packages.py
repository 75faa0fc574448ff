# SPDX-License-Identifier: Apache-2.0
"""The packages, built by the one command; once for all tests of a run."""

import fcntl
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fakes.tools import need

REPO = Path(__file__).parents[2]


def build(out: Path, *options: str, kinds: str = "--rpm") -> Path:
    """Build the packages and updaterd's own tree (`tree`) into `out`."""
    need("strip", "binutils")
    done = subprocess.run(
        [
            *(sys.executable, REPO / "packaging/build.py"),
            *("--out", out, "--tree", out / "tree", *filter(None, [kinds]), *options),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return out


@functools.cache
def built() -> Path:
    """Return a folder with the packages, built once for all processes of a run.

    UPDATERD_BUILT names one made before, UPDATERD_BUILD_ONCE a place that several runs
    share: the first that needs packages builds them there.
    """
    if before := os.environ.get("UPDATERD_BUILT"):
        return Path(before)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    once = os.environ.get("UPDATERD_BUILD_ONCE")
    if run is None and once is None:  # the only process of it
        return build(Path(tempfile.mkdtemp(prefix="updaterd-built-")))
    folder = Path(once or Path(tempfile.gettempdir(), f"updaterd-built-{run}"))
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build(Path(tempfile.mkdtemp(dir=folder.parent))).rename(folder)
    return folder
