# SPDX-License-Identifier: Apache-2.0
"""How fast a stream is read: a flood waits in the server's memory, not in ours."""

_AHEAD_S = 4.0
_LEAST = 2**16  # each chunk is work, however small


class Flow:
    """Bytes that may still be read at once, refilled with time.

    Args:
        rate: bytes a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._level = rate * _AHEAD_S
        self._at: float | None = None

    def take(self, size: int, *, now: float) -> None:
        """Count a chunk; seconds on a steady clock."""
        if self._at is not None:
            refilled = self._level + (now - self._at) * self._rate
            self._level = min(self._rate * _AHEAD_S, refilled)
        self._at = now
        self._level -= max(size, _LEAST)

    def wait_s(self, now: float) -> float:
        """Return how long the next chunk should wait."""
        if self._at is None or self._level >= 0:
            return 0.0
        return max(0.0, -self._level / self._rate - (now - self._at))
