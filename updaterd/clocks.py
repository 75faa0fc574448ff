# SPDX-License-Identifier: Apache-2.0
"""Where time and chance come from; tests hand in their own."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The daemon's sources of what it cannot compute.

    Attributes:
        now: Unix seconds.
        draw: uniform in [0, 1).
        steady: seconds of a clock that nobody sets.
    """

    now: Callable[[], float]
    draw: Callable[[], float]
    steady: Callable[[], float] = field(default_factory=lambda: steady_clock)


def wall_clock() -> float:
    """Return Unix seconds: here the real clock enters, everywhere else it is given."""
    return time.time()


def steady_clock() -> float:
    """Return seconds since the machine started, suspends included: nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def random_draw() -> float:
    """Return a number in [0, 1): here chance enters, everywhere else it is given."""
    return secrets.randbelow(2**53) / 2**53
