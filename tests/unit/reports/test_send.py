# SPDX-License-Identifier: Apache-2.0
"""Sending: nobody waits, a busy server is heard, what is refused does not block."""

import json
from contextlib import closing

import pytest

from updaterd.core.report import MOST, meant
from updaterd.core.settings import Reports
from updaterd.errors import TransientError
from updaterd.reports.send import Sender, Sent
from updaterd.store.outbox import Outbox
from updaterd.store.schema import open_state, transaction
from updaterd.system import locks

URL = "https://updates.example.com/v1/reports"
NOW = 1_800_000_000.0


class Server:
    """Answers as told, and keeps what came."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.came: list[list[dict]] = []
        self.headers: list[dict] = []
        self.bodies: list[bytes] = []
        self.patience: list[float] = []

    def exchange(self, url, body, *, headers, within_s):
        assert url == URL
        assert within_s > 0
        self.patience.append(within_s)
        self.bodies.append(body)
        self.came.append(json.loads(body))
        self.headers.append(dict(headers))
        answer = self.answers.pop(0) if self.answers else 202
        if callable(answer):
            answer = answer(self.came[-1])
        if isinstance(answer, Exception):
            raise answer
        status, more = answer if isinstance(answer, tuple) else (answer, {})
        return status, more, b'{"code": "<b>malformed</b>"}'


class Rig:
    def __init__(self, tmp_path, connection):
        (tmp_path / "locks").mkdir()
        self.state = tmp_path
        self.connection = connection
        self.outbox = Outbox(connection)
        self.now = NOW

    def fill(self, count, size=10):
        with transaction(self.connection):
            self.connection.executemany(
                "INSERT INTO outbox (id, product, body, at, steady, state) "
                "VALUES (?, 'acme', ?, ?, ?, 'waiting')",
                [
                    (f"r{n}", json.dumps({"n": n, "x": "x" * size}).encode(), NOW, 5.0)
                    for n in range(count)
                ],
            )

    def send(self, server, within_s=10.0, draw=0.5, **how):
        sender = Sender(
            settings=Reports(send=True, url=URL),
            outbox=self.outbox,
            fetcher=server,
            state=self.state,
            now=lambda: self.now,
            steady=lambda: 5.0 + self.now - NOW,
            draw=lambda: draw,
        )
        return sender.send(within_s=within_s, **how)


@pytest.fixture
def rig(tmp_path):
    with closing(open_state(tmp_path / "state.db")) as connection:
        yield Rig(tmp_path, connection)


def test_what_waits_goes_oldest_first_in_bounded_requests(rig):
    rig.fill(150)
    server = Server()

    sent = rig.send(server)

    assert sent.sent == 150
    assert [len(batch) for batch in server.came] == [MOST, MOST, 22]
    assert [r["n"] for batch in server.came for r in batch] == list(range(150))
    assert rig.outbox.count() == 0


def test_bytes_on_the_wire_are_those_of_the_outbox(rig):
    rig.fill(2)
    bodies = [row.body for row in rig.outbox.all()]
    server = Server()
    rig.send(server)

    assert server.bodies == [b"[" + b",".join(bodies) + b"]"]


def test_age_is_told_beside_the_bytes(rig):
    rig.fill(2)
    rig.now += 7.5
    server = Server()
    rig.send(server)

    assert server.headers[0]["Reports-Age"] == "7.5,7.5"


@pytest.mark.parametrize(
    "answer",
    [500, 502, 503, 429, 408, 301, 401, 403, 404, 200,
     TransientError("no route", code="unreachable"), OSError("?")],
)  # fmt: skip
def test_server_that_is_wrong_or_away_keeps_what_waits_and_is_named(rig, answer):
    rig.fill(3)

    assert rig.send(Server(answer)).waiting == 3
    state = rig.outbox.sending()
    assert state.failures == 1
    assert state.code
    assert state.next_at > NOW


def test_pause_after_failures_grows_and_ends_with_the_first_success(rig):
    rig.fill(1)
    pauses = []
    for _ in range(12):
        rig.send(Server(503), at_once=True)
        pauses.append(rig.outbox.sending().next_at - NOW)
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 2 * 6 * 3600
    rig.send(Server(202), at_once=True)

    assert rig.outbox.sending().failures == 0
    assert rig.outbox.sending().code == ""


def test_nothing_is_asked_before_its_time_but_by_a_person(rig):
    rig.fill(1)
    rig.send(Server((503, {"retry-after": "120"})))
    assert rig.outbox.sending().next_at >= NOW + 120
    rig.now += 100
    server = Server()
    rig.send(server)
    assert server.came == []

    assert rig.send(server, at_once=True).sent == 1


def test_retry_after_of_a_busy_server_that_took_them_is_heard(rig):
    rig.fill(MOST + 1)
    server = Server((202, {"retry-after": "60"}))

    assert rig.send(server).waiting == 1
    assert rig.outbox.sending().next_at >= NOW + 60


@pytest.mark.parametrize("after", ["9" * 400, "-1", "nonsense", "1e9", "\u00b2"])
def test_retry_after_of_a_liar_holds_nobody_for_years(rig, after):
    rig.fill(1)
    rig.send(Server((503, {"retry-after": after})))

    assert rig.outbox.sending().next_at <= NOW + 2 * 6 * 3600


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_report_that_is_refused_takes_no_other_with_it(rig, status):
    """A proxy or a newer server dislikes one: it alone is dropped, and told."""
    rig.fill(10)

    def judge(batch):
        return status if any(r["n"] == 7 for r in batch) else 202

    server = Server(*[judge] * 20)
    sent = rig.send(server)

    assert (sent.sent, sent.dropped, sent.waiting) == (9, 1, 0)
    (dropped,) = [row for row in rig.outbox.all() if row.state == "dropped"]
    assert json.loads(dropped.body)["n"] == 7
    assert str(status) in dropped.reason
    assert rig.outbox.sending().lost == 1


def test_two_senders_do_not_meet(rig):
    rig.fill(1)
    server = Server()
    with locks.hold(rig.state / "locks" / "reports.lock", subject="reports"):
        assert rig.send(server).waiting == 1

    assert server.came == []


def slow(rig, seconds, answer):
    """What a server answers after some time."""

    def judge(batch):
        rig.now += seconds
        return answer

    return judge


@pytest.mark.parametrize("status", [202, 400, 413, 422])
@pytest.mark.parametrize("within_s", [10.0, 100.0])
def test_server_that_is_slow_and_refuses_each_alone_holds_up_nothing(
    rig, status, within_s
):
    """An update ends with this: one time for all requests, halving included."""
    rig.fill(1000)
    server = Server(*[slow(rig, 3.0, status)] * 3000)
    sent = rig.send(server, within_s, at_once=True)

    assert rig.now - NOW < within_s + 3.0
    assert all(
        left <= within_s - 3.0 * number for number, left in enumerate(server.patience)
    )
    assert sent.sent + sent.dropped + sent.waiting == 1000
    assert rig.outbox.sending().failures == 0
    assert rig.outbox.sending().next_at == 0.0


def test_request_that_had_only_what_others_left_is_no_failure(rig):
    rig.fill(MOST + 1)
    late = TransientError("no answer in time", code="timeout")
    server = Server(slow(rig, 8.0, 202), slow(rig, 2.0, late))

    assert rig.send(server).waiting == 1
    assert rig.outbox.sending().failures == 0


def test_server_that_answers_nothing_in_all_that_time_is_a_failure(rig):
    rig.fill(1)
    late = TransientError("no answer in time", code="timeout")
    rig.send(Server(slow(rig, 10.0, late)))

    assert rig.outbox.sending().code == "timeout"
    assert rig.outbox.sending().next_at > rig.now


def test_what_was_taken_before_a_failure_is_counted(rig):
    rig.fill(4)
    server = Server(400, 202, 503)

    assert rig.send(server) == Sent(sent=2, waiting=2)


@pytest.mark.parametrize("days", [1, 20 * 365])
def test_clock_that_was_ahead_and_was_put_right_does_not_end_reports(rig, days):
    rig.fill(1)
    rig.now += days * 86400
    rig.send(Server(503))
    assert rig.outbox.sending().next_at > rig.now
    rig.now = NOW

    assert rig.outbox.due_at(rig.now) <= rig.now
    assert rig.send(Server()).sent == 1


def test_report_of_a_clock_that_was_ahead_is_due(rig):
    rig.fill(1)
    rig.connection.execute("UPDATE outbox SET at = at + 1e9")

    assert rig.outbox.due_at(NOW) <= NOW


def test_no_pause_is_taken_for_a_clock_that_was_ahead(rig):
    """The longest that any failure and any server can ask for is still waited."""
    rig.fill(1)
    for _ in range(20):
        rig.now = NOW
        rig.send(Server((503, {"retry-after": "86400"})), at_once=True, draw=0.999)
        assert rig.outbox.due_at(NOW) == rig.outbox.sending().next_at > NOW
    rig.send(Server((202, {"retry-after": "86400"})), at_once=True, draw=0.999)

    assert meant(rig.outbox.sending().next_at, NOW) > NOW
