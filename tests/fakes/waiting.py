# SPDX-License-Identifier: Apache-2.0
"""Wait for a condition of another process, never for an amount of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    look: Callable[[], T | None], *, within_s: float = 60.0, what: str = ""
) -> T:
    """Return the first truthy answer of `look`; fail when none comes in time.

    The bound only ends a test that would otherwise hang; it measures nothing.
    """
    end = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"never came: {what or look}")
        time.sleep(0.02)
