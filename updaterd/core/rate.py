# SPDX-License-Identifier: Apache-2.0
"""A token bucket: how long to wait so that a rate holds over every second.

Pure: the caller knows the time, and waits. What is not taken is not saved up beyond a
second's worth: a server that stalls and then hurries gets no more through than one
that is steady.
"""


class Rate:
    """At most `per_s` a second, and `per_s` at once.

    Args:
        per_s: how much a second; None: no limit.
        now: seconds on any clock that never goes back.
    """

    def __init__(self, per_s: int | None, now: float) -> None:
        self._per_s = per_s
        self._allowance = float(per_s or 0)
        self._at = now

    def take(self, count: int, now: float) -> float:
        """Return how many seconds to wait after `count` came.

        What came may be more than a second's worth: it is waited for all the same.
        """
        if self._per_s is None:
            return 0.0
        earned = (now - self._at) * self._per_s
        self._allowance = min(float(self._per_s), self._allowance + earned) - count
        self._at = now
        return max(0.0, -self._allowance / self._per_s)
