# SPDX-License-Identifier: Apache-2.0
"""Which updaterd an interpreter of the package runs, by whose process it is."""

import subprocess
import sys
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "packaging/private/_updaterd_site.py"
ASK = """
import os, pwd, runpy, sys, types
user, places = sys.argv[2:]
pwd.getpwuid = lambda _: types.SimpleNamespace(pw_name=user)
os.geteuid = lambda: 12345
real = os.lstat
os.lstat = lambda path, **how: types.SimpleNamespace(
    st_uid=12345, st_mode=real(path, **how).st_mode & ~0o22
)
space = runpy.run_path(sys.argv[1])
space["choose"].__globals__["PLACES"] = places
print(space["choose"]())
"""


@pytest.mark.parametrize(
    ("user", "own"),
    [("updaterd", "updaterd"), ("updaterd-lab", "updaterd-lab"), ("ada", "updaterd"),
     ("updaterdx", "updaterd"), ("updaterd-new", None)],
)  # fmt: skip
def test_each_daemon_runs_its_own_release_and_no_other(tmp_path, user, own):
    """What `updaterd-lab` installed for itself is not run by `updaterd`."""
    for name in ("updaterd", "updaterd-lab"):
        package = tmp_path / name / "releases/2/updaterd"
        package.mkdir(parents=True)
        (package / "__main__.py").touch()
        (tmp_path / name / "current").symlink_to("releases/2")

    said = subprocess.run(
        [sys.executable, "-I", "-c", ASK, SITE, user, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    wanted = f"{tmp_path}/{own}/releases/2" if own else "/usr/lib/updaterd/site"
    assert wanted == said
