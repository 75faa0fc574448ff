"""Where time and chance come from; tests hand in their own."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The daemon's sources of what it cannot compute.

    Attributes:
        now: Unix seconds.
        draw: uniform in [0, 1).
    """

    now: Callable[[], float]
    draw: Callable[[], float]
