# SPDX-License-Identifier: Apache-2.0
"""Real user ids: an ordinary user, an application's, the daemon's, and root."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from fakes.people import DAEMON, can_be_others
from fakes.tools import need_root


@pytest.fixture(autouse=True)
def _as_root():
    """Each test is root's: nobody else can become others."""
    need_root()
    can_be_others()


@pytest.fixture
def ground():
    """A folder of root's that everybody may enter; pytest's own are this user's."""
    folder = Path(tempfile.mkdtemp(prefix="updaterd-local-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own(ground):
    """A folder of the daemon's user."""
    folder = ground / "own"
    folder.mkdir()
    os.chown(folder, DAEMON, DAEMON)
    return folder


@pytest.fixture
def racing_s(pytestconfig):
    """Return how long a racer runs, in seconds: CONTRIBUTING.md."""
    return float(os.environ.get("UPDATERD_RACE_S", "1"))
