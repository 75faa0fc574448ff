# SPDX-License-Identifier: Apache-2.0
"""Cut the power before the n-th disk step, and again, until a run completes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from fakes.disk import Disk, PowerCut
from fakes.releases import Releases, clone

from updaterd import durable


@pytest.fixture
def cut_before(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int], AbstractContextManager[Disk]]:
    """Return what arms a power cut before a step of `durable`."""

    @contextmanager
    def arm(step: int) -> Iterator[Disk]:
        disk = Disk(step)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", disk)
            patch.setattr(durable, "_libc", disk.libc)
            try:
                yield disk
            except PowerCut:
                disk.power_was_cut = True

    return arm


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    found = Releases(tmp_path_factory.mktemp("releases"))
    found.push("1.0.0")
    yield found
    found.close()


@pytest.fixture(scope="module")
def template(releases):
    """A machine at 1.0.0; 1.1.0 is offered afterwards."""
    machine = releases.machine(releases.root / "machine")
    machine("update", "acme")
    releases.push("1.1.0")
    clone(machine.root, releases.root / "template")
    return machine


@pytest.fixture
def machine(releases, template):
    clone(releases.root / "template", template.root)
    return template
