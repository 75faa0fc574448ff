# SPDX-License-Identifier: Apache-2.0
"""How often an address may try a secret: what is guessed counts, what is right not."""

from collections import OrderedDict
from collections.abc import Callable

from updaterd.server.streams.admission import Bucket

AWAY_S = 10
"""How long whoever tried too often is sent away."""

_RATE, _BURST = 1 / AWAY_S, 10.0
_ALL_RATE, _ALL_BURST = 20.0, 100.0
_MOST_ADDRESSES = 10_000


class Tries:
    """Counts tries, of each address and of all together.

    Args:
        clock: seconds on a steady clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._all = Bucket(_ALL_RATE, _ALL_BURST, _ALL_BURST, clock())

    def admit(self, address: str) -> bool:
        """Tell whether an address may try now; each counts, till forgiven."""
        now = self._clock()
        bucket = self._buckets.get(address)
        if bucket is None:
            if len(self._buckets) >= _MOST_ADDRESSES:
                self._buckets.popitem(last=False)
            bucket = self._buckets[address] = Bucket(_RATE, _BURST, _BURST, now)
        else:
            self._buckets.move_to_end(address)
        return bucket.take(now) and self._all.take(now)

    def forgive(self, address: str) -> None:
        """Count the last try of an address no longer: it was right."""
        for bucket in (self._buckets.get(address), self._all):
            if bucket is not None:
                bucket.level += 1
