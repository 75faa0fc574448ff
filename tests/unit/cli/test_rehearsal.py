# SPDX-License-Identifier: Apache-2.0
"""A rehearsal condemns a release for what the release did, and for nothing else."""

import pytest

from updaterd.cli.parts import rehearsal
from updaterd.daemon.workers import Ended


@pytest.mark.parametrize(
    "code", ["no_answer", "worker_silent", "worker_killed", "disk_full"]
)
def test_worker_that_the_machine_stopped_is_no_verdict(code):
    ended = Ended(code=10, starved=False)
    assert isinstance(rehearsal.failure(ended, code, "why"), rehearsal.NoVerdictError)


@pytest.mark.parametrize("code", ["worker_crashed", "bad_bundle", ""])
def test_worker_that_fails_by_itself_speaks_against_its_release(code):
    ended = Ended(code=10, starved=False)
    assert isinstance(rehearsal.failure(ended, code, "why"), ValueError)


def test_worker_that_was_out_of_memory_is_no_verdict():
    ended = Ended(code=-9, starved=True)
    assert isinstance(rehearsal.failure(ended, "", "why"), rehearsal.NoVerdictError)
