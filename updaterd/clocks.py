# SPDX-License-Identifier: Apache-2.0
"""Where time and chance come from; tests hand in their own."""

import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator
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


class Draws:
    """Draws as `random_draw` does, for whoever draws thousands of times a second."""

    def __init__(self) -> None:
        self._pool: Iterator[tuple[int]] = iter(())

    def __call__(self) -> float:
        """Return a number in [0, 1)."""
        for (bits,) in self._pool:
            return (bits >> 11) / 2**53
        self._pool = struct.iter_unpack("=Q", os.urandom(2048))
        return self()
