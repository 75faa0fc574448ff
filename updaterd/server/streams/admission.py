# SPDX-License-Identifier: Apache-2.0
"""Admission of new streams: a rate, fair shares, and times to come back.

Pure: the caller says what time it is and draws the random numbers.

The first delay decides how high a reconnect storm peaks, so the server hands it
out while all is well: each stream is given its own `retry:`, drawn from a window
wide enough for the whole fleet at half the capacity. Who comes too early all the
same is refused with the time of the next free place (503, Retry-After): refusals
book places one after the other, so that those who obey come back evenly.

While places are booked, nobody gets more than a fair share of them: an address that
knocks and knocks books on a line of its own, and is let in as often as its share
allows, so that it delays itself and not the others.
"""

import heapq
from dataclasses import dataclass

_SHARE = 0.5  # of the capacity is planned for those who come back
_FIRST_S = 1.0
_LEAST_WINDOW_S = 2.0
_MOST_LINES = 20_000
_LATE_S = 3.0  # whole seconds are told, and nobody comes to the second
_LONGEST_S = 300.0  # no client is sent away for longer (core/backoff caps there too)


@dataclass(slots=True)
class Bucket:
    """A token bucket.

    Attributes:
        rate: tokens a second.
        burst: how many can be saved up.
        level: tokens there now.
        at: when `level` was true, seconds on any steady clock.
    """

    rate: float
    burst: float
    level: float
    at: float

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


@dataclass(slots=True)
class _Line:
    """The places that one address has booked.

    Attributes:
        booked: its last place, seconds on the steady clock.
        free_at: when its share lets it in again.
    """

    booked: float
    free_at: float


class Admission:
    """Decides which new streams are admitted.

    Args:
        rate: capacity, new streams a second.
        burst: how many may come at once.
        expected: size of the fleet, when the operator knows it.
        now: seconds on a steady clock.

    Attributes:
        window: what `window_s` returned last.
    """

    def __init__(
        self, *, rate: float, burst: int, expected: int = 0, now: float
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._bucket = Bucket(rate, burst, burst, now)
        self._booked = now
        self._fleet = expected
        self.window = _LEAST_WINDOW_S
        self._lines: dict[str, _Line] = {}
        self._ends: list[tuple[float, str]] = []  # a heap: when to look at a line

    def admit(self, now: float, *, draw: float, client: str = "") -> int:
        """Return 0 to let a stream in, else seconds until it may try again.

        Args:
            now: seconds on a steady clock.
            draw: uniform in [0, 1).
            client: whose share it is: an address, or a token.
        """
        self._forget(now)
        line = self._lines.get(client)
        if self._is_within_share(line, now) and self._bucket.take(now):
            if self._lines:
                self._take_share(line, client, now)
            return 0
        wait = self._book(line, client, now)
        if wait > _LONGEST_S:
            # too many to keep a place for each, or some who do not wait
            wait = _LONGEST_S * (0.5 + draw / 2)
        return 1 + int(wait)

    def _is_within_share(self, line: _Line | None, now: float) -> bool:
        if line is None:
            return True
        count = len(self._lines)
        return line.free_at - now <= max(1.0, self._burst / count) * count / self._rate

    def _take_share(self, line: _Line | None, client: str, now: float) -> None:
        """Count an admission against the share of an address."""
        if line is None:
            line = self._new_line(client, now)
        if line is not None:
            line.free_at = max(line.free_at, now) + len(self._lines) / self._rate

    def _book(self, line: _Line | None, client: str, now: float) -> float:
        """Book a place for an address and return the seconds until then."""
        if line is not None and line.booked > now:
            step = len(self._lines) / (_SHARE * self._rate)
            line.booked = min(line.booked + step, now + _LONGEST_S + 1)
            return line.booked - now
        self._booked = max(self._booked, now) + 1 / (_SHARE * self._rate)
        wait = self._booked - now
        self._booked = min(self._booked, now + _LONGEST_S)
        line = line or self._new_line(client, now)
        if line is not None:
            line.booked = now + wait
        return wait

    def _new_line(self, client: str, now: float) -> _Line | None:
        if len(self._lines) >= _MOST_LINES:
            return None  # a crowd: one line for all of these
        line = self._lines[client] = _Line(now, now)
        heapq.heappush(self._ends, (now, client))
        return line

    def _forget(self, now: float) -> None:
        """Delete the lines in which nobody waits."""
        while self._ends and self._ends[0][0] < now:
            _, client = heapq.heappop(self._ends)
            line = self._lines[client]
            ends = max(line.booked + _LATE_S, line.free_at)
            if ends < now:
                del self._lines[client]
            else:
                heapq.heappush(self._ends, (ends, client))

    def window_s(self, streams: int) -> float:
        """Return over how long this many streams should come back."""
        self._fleet = max(self._fleet, streams)
        window = max(_LEAST_WINDOW_S, self._fleet / (_SHARE * self._rate))
        self.window = min(_LONGEST_S - _FIRST_S, window)
        return self.window

    def retry_ms(self, streams: int, *, draw: float) -> int:
        """Return the `retry:` for one stream of a fleet.

        The upper half of the window, at the full rate: someone with a short time
        would knock again and again while a server is down.

        Args:
            streams: how many there are now.
            draw: uniform in [0, 1).
        """
        return int(1000 * (_FIRST_S + (0.5 + draw / 2) * self.window_s(streams)))
