# SPDX-License-Identifier: Apache-2.0
"""What lying servers of reports and receivers do to a publisher who watches."""

import base64

import pytest

from updaterd.errors import BrokenError
from updaterd.release import fleet
from updaterd.release.rollouts import webhooks


class Answering:
    """A fetcher that gets the same bytes from everywhere."""

    def __init__(self, body):
        self._body = body

    def get(self, url, *, limit):
        del url
        assert len(self._body) <= limit
        return self._body


@pytest.mark.parametrize(
    "body", [b"[" * 200_000, b'{"schema":' * 200_000, b"\xff", b"[]"]
)
def test_nested_nonsense_is_no_answer(body):
    with pytest.raises(BrokenError, match="does not answer like a report server"):
        fleet.population(Answering(body), "http://127.0.0.1:1/v1/fleet")


@pytest.mark.parametrize("count", ["1e9", "-1", "true", "Infinity", "9" * 4000, "null"])
def test_a_count_that_is_no_number_of_machines_is_not_taken(count):
    row = f'{{"product": "acme", "channel": "stable", "machines": {count}}}'
    body = f'{{"schema": 1, "channels": [{row}]}}'.encode()
    with pytest.raises(ValueError, match="machines"):
        fleet.population(Answering(body), "http://127.0.0.1:1/v1/fleet")


class Slow:
    """A receiver that takes what it gets, seven seconds each."""

    def __init__(self):
        self.now = 0.0

    def exchange(self, url, body, *, headers, within_s):
        del url, body, headers
        assert within_s > 0
        self.now += 7.0
        return 200, {}, b""


def test_a_slow_receiver_does_not_keep_a_halt_waiting():
    hook = webhooks.Webhook(
        name="slow", url="https://slow.example/", secret=b"", form="standard"
    )
    names = ("act", "product", "channel", "version", "who", "why", "at", "pointer")
    lines = [dict.fromkeys(names, "x") | {"n": n} for n in range(1, 21)]
    slow = Slow()
    done, wrong = webhooks.send(
        slow, hook, lines, after=0, now=0, clock=lambda: slow.now
    )
    assert done == 3
    assert "is slow" in wrong
    assert slow.now <= webhooks.ROUND_S + 7.0
    assert (
        webhooks.send(slow, hook, lines, after=done, now=0, clock=lambda: slow.now)[0]
        == 6
    )


def test_a_short_secret_of_a_webhook_is_named_as_that(tmp_path):
    (tmp_path / "hook.secret").write_text(base64.b64encode(b"short").decode())
    table = [{"url": "https://ops.example.com/hook", "secret_file": "hook.secret"}]
    with pytest.raises(BrokenError, match="shorter than 16 bytes"):
        webhooks.configured(tmp_path, table)
