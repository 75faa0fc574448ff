# SPDX-License-Identifier: Apache-2.0
"""Send what waits in the outbox: a few requests, all within one time; leave word.

Nobody waits for it and nothing depends on it. A server that is busy says when to come
again; one that is wrong, or away, is tried with backoff, and what it refuses for ever
is dropped with its reason. The update whose end is told is long over.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from updaterd.core.backoff import Backoff
from updaterd.core.dataclass import dataclass
from updaterd.core.report import MOST, Moment, elapsed, join, meant
from updaterd.core.retry_after import parse_retry_after
from updaterd.core.settings import Reports
from updaterd.core.text import printable
from updaterd.errors import UpdaterError
from updaterd.net import Fetcher
from updaterd.store.outbox import Outbox, Row
from updaterd.system import locks

_BATCH_BYTES = 64 * 1024
_MOST_REQUESTS = 32
_RETRY = Backoff(base=30.0, cap=6 * 3600.0)
_REFUSED_FOR_EVER = frozenset({400, 413, 422})  # these reports, not this machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one run of sending came to: reports that were taken, dropped, and wait."""

    sent: int = 0
    dropped: int = 0
    waiting: int = 0


class _PutOffError(Exception):
    """Not now: the outbox knows when, or the time for this run is over."""


class _Run:
    """One run of sending.

    Attributes:
        until: when it is over, by the clock that nobody sets.
        answered: requests that a server answered, whatever it said.
        sent: reports that were taken.
        dropped: reports that were refused for ever.
    """

    def __init__(self, until: float) -> None:
        self.until = until
        self.answered = self.sent = self.dropped = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Sends the outbox of one machine.

    Attributes:
        settings: `[reports]`.
        outbox: where they are.
        fetcher: asks the network, with the headers of `[reports]`.
        state: the state directory, with the lock.
        now: Unix seconds.
        steady: seconds of a clock that nobody sets.
        draw: uniform in [0, 1), for backoff.
    """

    settings: Reports
    outbox: Outbox
    fetcher: Fetcher
    state: Path
    now: Callable[[], float]
    steady: Callable[[], float]
    draw: Callable[[], float]

    def send(self, *, within_s: float, at_once: bool = False) -> Sent:
        """Send what waits, if it is time.

        Args:
            within_s: how long all of it may take; what is left then waits, which is no
                failure. A server that is slow, or refuses each of them, takes no more.
            at_once: a person asks: the pause after a failure does not count.

        Raises:
            sqlite3.Error: the outbox cannot be written; reports may go twice.

        Power cut: what a server took and was not noted is sent again, and counted
            once: it bears the same id.
        """
        run = _Run(self.steady() + within_s)
        try:
            with locks.hold(self.state / "locks" / "reports.lock", subject="reports"):
                for _ in range(_MOST_REQUESTS):
                    if not at_once and self._is_held():
                        break
                    rows = self.outbox.waiting(most=MOST, most_bytes=_BATCH_BYTES)
                    if not rows:
                        break
                    self._send(rows, run)
        except (_PutOffError, locks.BusyError):
            pass
        return Sent(sent=run.sent, dropped=run.dropped, waiting=self.outbox.count())

    def _is_held(self) -> bool:
        """Tell whether a failure, or a busy server, put the next attempt off."""
        now = self.now()
        return meant(self.outbox.sending().next_at, now) > now

    def _send(self, rows: Sequence[Row], run: _Run) -> None:
        """Send these.

        Raises:
            _PutOffError: no more of them now.
        """
        left_s = run.until - self.steady()
        if left_s <= 0:
            raise _PutOffError
        try:
            status, headers, body = self.fetcher.exchange(
                self.settings.url,
                join([row.body for row in rows]),
                headers=self._headers(rows),
                within_s=left_s,
            )
        except (UpdaterError, OSError) as error:
            if run.answered and self.steady() >= run.until:
                raise _PutOffError from error  # it had what the others left it
            if isinstance(error, UpdaterError):
                raise self._put_off(error.code, error.cause) from error
            raise self._put_off("network", str(error)) from error
        run.answered += 1
        after = parse_retry_after(
            headers.get("retry-after", ""),
            date=headers.get("date", ""),
            now=self.now(),
        )
        if status == 202:
            now = self.now()
            next_at = now + min(after, 3600.0) * (1 + self.draw()) if after else 0.0
            self.outbox.sent(rows, now=now, next_at=next_at)
            run.sent += len(rows)
            return
        reply = printable(body[:200].decode("utf-8", "replace"), longest=200)
        text = f"the server answered {status}: {reply}"
        if status not in _REFUSED_FOR_EVER:
            raise self._put_off(f"http_{status}", text, after)
        if len(rows) == 1:
            self.outbox.drop(rows[0], reason=text)
            run.dropped += 1
            return
        # one of them is refused: the others are not to suffer for it
        half = len(rows) // 2
        self._send(rows[:half], run)
        self._send(rows[half:], run)

    def _headers(self, rows: Sequence[Row]) -> Mapping[str, str]:
        """Return what goes with the reports: how old each is."""
        now = Moment(self.now(), self.steady())
        ages = (elapsed(row.moment, now) for row in rows)
        # not in the body, whose bytes stay what `updaterd reports` shows
        text = ",".join("" if age is None else f"{age:g}" for age in ages)
        return {"Reports-Age": text}

    def _put_off(self, code: str, text: str, after: float = 0.0) -> _PutOffError:
        failures = self.outbox.sending().failures + 1
        delay = _RETRY.delay(
            failures, draw=self.draw(), after=after if math.isfinite(after) else 0.0
        )
        self.outbox.failed(code=code, error=text, next_at=self.now() + delay)
        return _PutOffError()
