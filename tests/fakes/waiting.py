# SPDX-License-Identifier: Apache-2.0
"""Wait for a condition of another process, never for an amount of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    look: Callable[[], T | None], *, within_s: float = 60.0, event: str = ""
) -> T:
    """Return the first truthy answer of `look`; fail when none comes in time.

    The bound only ends a test that would otherwise hang; it measures nothing. What
    is long in coming is looked for less often: looking may cost a process.
    """
    begin = time.monotonic()
    while True:
        answer = look()
        if answer:
            return answer
        waited_s = time.monotonic() - begin
        if waited_s > within_s:
            raise AssertionError(f"never came: {event or look}")
        time.sleep(min(0.01 + waited_s / 20, 0.1))
