# SPDX-License-Identifier: Apache-2.0
"""Applications that ask to wait: a lock that lasts as long as who asks is connected.

The process that answers applications holds the lock; however it ends, the kernel gives
the lock back, and nothing waits for an application that is gone. Why it asks stands in
the lock's file.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from updaterd.system import locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST = 4096


def _file(state: Path, product: str) -> Path:
    return state / "locks" / f"{product}.inhibit"


@contextmanager
def ask(state: Path, product: str, why: str) -> Iterator[None]:
    """Ask to wait with activating a product's release while the block runs.

    Raises:
        BusyError: another process asks already.
        OSError: the file cannot be made.

    Power cut: the lock is gone with its process.
    """
    path = _file(state, product)
    with locks.hold(path, subject=f"the wish to wait of {product}"):
        # not replaced: the lock is on this very file
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(why.encode(errors="replace")[:_LONGEST])
        yield


def asked_for(state: Path, product: str) -> str:
    """Return why an application asks to wait; empty: none does."""
    path = _file(state, product)
    if not locks.is_held(path):
        return ""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
            why = file.read(_LONGEST).decode(errors="replace")
    except OSError:
        why = ""
    return why or "it does not say why"
