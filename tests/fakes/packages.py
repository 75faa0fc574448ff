# SPDX-License-Identifier: Apache-2.0
"""The packages, built by the one command; once for all tests of a run."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fakes.tools import need

REPO = Path(__file__).parents[2]


def build(out: Path, *options: str) -> Path:
    """Build the packages and updaterd's own tree (`tree`) into `out`."""
    need("strip", "binutils")
    done = subprocess.run(
        [
            *(sys.executable, REPO / "packaging/build.py"),
            *("--out", out, "--tree", out / "tree", "--rpm", *options),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return out


@functools.cache
def built() -> Path:
    """Return a folder with the packages; UPDATERD_BUILT names one made before."""
    if made := os.environ.get("UPDATERD_BUILT"):
        return Path(made)
    return build(Path(tempfile.mkdtemp(prefix="updaterd-built-")))
