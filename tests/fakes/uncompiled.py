# SPDX-License-Identifier: Apache-2.0
"""updaterd as it is where there was no compiler: without `artifact._native`."""

import os
import sys

import pytest

import updaterd.artifact.apply
from updaterd.artifact.job import Job
from updaterd.artifact.worker import parent
from updaterd.artifact.worker.parent import Answer

BOTH = ("compiled", "interpreted")
"""Loops that apply deltas."""


def use(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process apply deltas by one of BOTH; skip where that is not there."""
    if which == "compiled":
        if os.environ.get("CI") != "true":  # there it must be
            pytest.importorskip("updaterd.artifact._native", exc_type=ImportError)
        return
    for package, name in (
        (updaterd.artifact, "_native"),
        (updaterd.artifact.apply, "compiled"),
    ):
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", None)
        monkeypatch.delattr(package, name, raising=False)


def ask(which: str, job: Job) -> Answer:
    """Return what the bundle opener says, with one of BOTH loops."""
    answer = parent.ask(job, argv=command(which))
    assert answer.confined is not None, answer.text
    assert answer.end is not None, answer
    return answer


def command(which: str) -> list[str]:
    """Return how a worker is started that applies deltas by one of BOTH."""
    return parent.command(interpreted=which == "interpreted")
