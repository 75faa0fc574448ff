"""Cut the power before the n-th disk step, and again, until a run completes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from fakes.disk import Disk, PowerCut

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
