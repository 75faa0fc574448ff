"""How many come in a second, and when the others are to come back.

Pure: the caller says what time it is and draws the random numbers.

The first delay decides how high a reconnect storm peaks, so the server hands it
out while all is well: each stream is given its own `retry:`, drawn from a window
wide enough for the whole fleet at half the capacity. Who comes too early all the
same is refused with the time of the next free place (503, Retry-After): refusals
book places one after the other, so that those who obey come back evenly.
"""

from dataclasses import dataclass

_SHARE = 0.5  # of the capacity is planned for those who come back
_FIRST_S = 1.0
_LEAST_WINDOW_S = 2.0
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


class Admission:
    """The door for new streams.

    Args:
        rate: capacity, new streams a second.
        burst: how many may come at once.
        expected: size of the fleet, when the operator knows it.
        now: seconds on a steady clock.
    """

    def __init__(
        self, *, rate: float, burst: int, expected: int = 0, now: float
    ) -> None:
        self._rate = rate
        self._bucket = Bucket(rate, burst, burst, now)
        self._booked = now
        self._fleet = expected

    def admit(self, now: float, *, draw: float) -> int:
        """Return 0 to let a stream in, else seconds until it may try again.

        Args:
            now: seconds on a steady clock.
            draw: uniform in [0, 1).
        """
        if self._bucket.take(now):
            return 0
        self._booked = max(self._booked, now) + 1 / (_SHARE * self._rate)
        wait = self._booked - now
        if wait > _LONGEST_S:
            # too many to keep a place for each, or some who do not wait
            self._booked = now + _LONGEST_S
            wait = _LONGEST_S * (0.5 + draw / 2)
        return 1 + int(wait)

    def window_s(self, streams: int) -> float:
        """Return over how long this many streams should come back."""
        self._fleet = max(self._fleet, streams)
        window = max(_LEAST_WINDOW_S, self._fleet / (_SHARE * self._rate))
        return min(_LONGEST_S - _FIRST_S, window)

    def retry_ms(self, streams: int, *, draw: float) -> int:
        """Return the `retry:` for one stream of a fleet.

        The upper half of the window, at the full rate: someone with a short time
        would knock again and again while a server is down.

        Args:
            streams: how many there are now.
            draw: uniform in [0, 1).
        """
        return int(1000 * (_FIRST_S + (0.5 + draw / 2) * self.window_s(streams)))
