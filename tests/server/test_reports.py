# SPDX-License-Identifier: Apache-2.0
"""`POST /v1/reports` and `GET /v1/fleet` of a real server: hostile bodies, limits."""

import contextlib
import gzip
import http.client
import json
import os
import socket
import threading

import pytest
from fakes.reports import body, report
from fakes.serving import request

pytestmark = pytest.mark.slow
HTML = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from fakes.serving import FeedProcess

    folder = tmp_path_factory.mktemp("reports")
    feed = FeedProcess(
        folder / "state",
        *("--reports", "open", "--metrics", "open", "--reports-rate", "10000"),
    )
    with feed:
        feed.reader = feed.token("fleet:read")
        yield feed


def post(server, data, **headers):
    return request(f"{server.url}/v1/reports", "POST", data, **headers)


def get(server, path, token=None):
    token = server.reader if token is None else token
    return request(f"{server.url}{path}", authorization=f"Bearer {token}")


def channel(server, product="acme"):
    answer = get(server, f"/v1/fleet/products/{product}/channels/stable")
    assert answer.status == 200
    return json.loads(answer.body)["releases"]


def test_reports_are_counted_once_and_read_back(server):
    data = body(report(1, product="once"), report(2, product="once"))
    assert post(server, data, **{"Reports-Age": "1,2"}).status == 202
    assert post(server, data, **{"Reports-Age": "1,2"}).status == 202

    (release,) = channel(server, "once")
    assert release["machines"] == {"installed": 2}
    assert release["reports"] == {"installed": 2}
    assert release["running"] == 2
    answer = get(server, "/v1/fleet")
    assert {"product": "once", "channel": "stable", "machines": 2} in json.loads(
        answer.body
    )["channels"]
    one = get(server, "/v1/fleet/products/once/channels/stable/releases/2.0.0")
    assert json.loads(one.body)["hours"][0]["reports"] == 2


def test_whose_fault_a_code_is_comes_along(server):
    post(server, body(report(1, product="blame", outcome="rolled_back")))

    release, _ = channel(server, "blame")  # and the one that is back
    assert release["codes"] == [
        {"outcome": "rolled_back", "code": "unhealthy", "machines": 1,
         "fault": "release"}
    ]  # fmt: skip


def changed(**members):
    document = json.loads(report(9, product="hostile").encode())
    return json.dumps([document | members]).encode()


FIELDS = [name for name in json.loads(report().encode()) if name != "schema"]
HOSTILE = {
    "nothing": b"",
    "an object": b"{}",
    "no report": b"[]",
    "not JSON": b"[{]",
    "not UTF-8": b'["\xff"]',
    "nesting": b"[" * 60_000,
    "nested objects": b'[{"schema":1,"id":' + b'{"a":' * 5000 + b"1",
    "65 reports": body(*(report(n, product="hostile") for n in range(65))),
    "NaN": changed(ended_s=0).replace(b'"ended_s": 0', b'"ended_s": NaN'),
    "an integer of thousands of digits": changed(seq=0).replace(
        b'"seq": 0', b'"seq": ' + b"9" * 4000
    ),
    "a name twice": changed().replace(b'"seq"', b'"product": "a", "seq"'),
    "another schema": changed(schema=2),
    "a time before all time": changed(event_ms=-1),
    "a duration of centuries": changed(ended_s=1e12),
    "a thousand tags": changed(tags=["a"] * 1000),
    "numbers for tags": changed(tags=[1]),
    **{f"HTML in {name}": changed(**{name: HTML}) for name in FIELDS},
    **{f"an array in {name}": changed(**{name: [[]]}) for name in FIELDS},
    **{f"a string for {name}": changed(**{name: "12"}) for name in
       ("seq", "from_seq", "event_ms", "ended_s", "bytes_fetched", "lost")},
}  # fmt: skip


def test_hostile_bodies_end_in_a_typed_refusal_and_count_nothing(server):
    for name, data in HOSTILE.items():
        answer = post(server, data)
        assert 400 <= answer.status < 500, name
        document = json.loads(answer.body)
        assert document, name
        assert HTML not in answer.body.decode().replace("\\u003c", "<"), name

    assert channel(server, "hostile") == []


def test_body_that_is_too_large_is_refused_before_it_is_whole(server):
    answer = post(server, b"[" + b" " * 300_000)

    assert answer.status == 413


@pytest.mark.parametrize("path", ["/v1/reports", "/v1/events", "/v1/enroll"])
def test_body_that_would_have_to_be_unpacked_is_refused(server, path):
    """A few bytes may unpack to any number."""
    token = server.token("publish:acme/stable")
    answer = request(
        f"{server.url}{path}",
        "POST",
        gzip.compress(b"[" * 100_000),
        **{"Content-Encoding": "gzip", "Idempotency-Key": "k"},
        authorization=f"Bearer {token}",
    )
    assert answer.status == 400
    assert b"encoding" in answer.body


def test_times_of_1970_and_2200_are_counted_and_make_no_clock(server):
    for number, event_ms in enumerate((1, 7_258_118_400_000)):
        one = report(number, product="times", event_ms=event_ms, ended_s=None)
        assert post(server, body(one), **{"Reports-Age": "1"}).status == 202

    (release,) = channel(server, "times")
    assert release["running"] == 2
    assert release["latency"] == {}


@pytest.mark.parametrize(
    "ages", ["", "x", "-1", "1,2,3", "nan", "inf", "1e300", "," * 5000]
)
def test_ages_that_make_no_sense_are_no_ages(server, ages):
    one = report(1, product="ages", version=f"1.{len(ages)}", seq=len(ages))

    assert post(server, body(one), **{"Reports-Age": ages}).status == 202


def test_fleet_is_for_its_readers_alone(server):
    path = "/v1/fleet/products/acme/channels/stable"
    operator = server.token("operate", "report:acme")

    assert get(server, path, "upd_nobody").status == 401
    assert get(server, path, operator).status == 403
    assert get(server, f"{path}/releases/9.9", server.reader).status == 404
    for query in ("limit=0", "limit=101", "limit=x", "before=x", f"before={2**70}"):
        assert get(server, f"{path}?{query}").status == 400, query


def test_other_methods_are_refused(server):
    assert request(f"{server.url}/v1/reports").status == 405


def test_metrics_have_the_latency_of_releases(server):
    data = body(report(1, product="metric", event_ms=None, ended_s=3.0))
    post(server, data, **{"Reports-Age": "1"})
    text = server.metrics()

    labels = 'channel="stable",{},product="metric",{}version="2.0.0"'
    part = labels.format('le="5.0",part="ended"', 'trigger="event",')
    assert f"updaterd_publish_to_installed_seconds_bucket{{{part}}} 1.0" in text
    outcome = labels.format('outcome="installed"', "")
    assert f"updaterd_release_machines{{{outcome}}} 1.0" in text
    assert "updaterd_reports_kept_total" in text


def test_closed_fleet_takes_only_its_own(start_feed):
    server = start_feed("--reports", "token")
    token = server.token("report:acme")
    auth = {"Authorization": f"Bearer {token}"}

    assert post(server, body(report(1))).status == 401
    assert post(server, body(report(1)), **auth).status == 202
    other = body(report(1), report(1, product="other"))
    assert post(server, other, **auth).status == 403
    server.reader = server.token("fleet:read")
    assert channel(server, "other") == []
    assert len(channel(server)) == 1


def test_flood_of_one_sender_is_told_when_to_come_again(start_feed):
    server = start_feed("--reports", "open", "--reports-rate", "2")
    answers = [post(server, body(report(n))) for n in range(20)]
    refused = [answer for answer in answers if answer.status == 429]

    assert refused
    assert all(int(answer.headers["retry-after"]) >= 10 for answer in refused)


def test_bodies_that_never_come_keep_nobody_else_out(start_feed):
    """One address announces 16 MiB on 128 connections, and sends nothing."""
    server = start_feed("--reports", "open", "--max-per-address", "0")
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/reports HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 17}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        refused = []
        for _ in range(128):
            sock = stack.enter_context(socket.create_connection((host, int(port))))
            sock.sendall(head.encode() + b"[")
            refused.append(sock)
        # some were told to come again: the rest of them holds what one may hold
        assert refused[-1].recv(12) == b"HTTP/1.1 503"
        sender = http.client.HTTPConnection(
            host, int(port), source_address=("127.0.0.2", 0)
        )
        stack.callback(sender.close)
        sender.request("POST", "/v1/reports", body(report(1, product="calm")))
        assert sender.getresponse().status == 202


def test_server_that_takes_no_reports_says_so(start_feed):
    assert post(start_feed(), body(report(1))).status == 404


def test_process_of_reports_alone_runs_behind_the_feed(start_feed):
    """Where both want a core, the streams get it; so do the threads that write."""
    arguments = ("--reports", "open", "--only", "reports")
    server = start_feed(*arguments)
    assert post(server, body(report(1))).status == 202
    for task in os.listdir(f"/proc/{server.process.pid}/task"):
        assert os.sched_getscheduler(int(task)) == os.SCHED_BATCH
        niceness = os.getpriority(os.PRIO_PROCESS, int(task))
        assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)


@pytest.mark.parametrize("how", [(), ("--only", "reports")])
def test_burst_over_kills_loses_nothing_and_counts_nothing_twice(
    start_feed, tmp_path, how
):
    """Machines that got no 202 send again; the server is killed at any moment."""
    arguments = ("--reports", "open", "--reports-rate", "100000", *how)
    server = start_feed(*arguments)
    address, stop = [server.url], threading.Event()
    batches = [[report(8 * n + k) for k in range(8)] for n in range(150)]
    todo, lock = list(batches), threading.Lock()

    def machine():
        while True:
            with lock:
                if not todo:
                    return
                batch = todo.pop()
            while True:
                try:
                    answer = request(f"{address[0]}/v1/reports", "POST", body(*batch))
                except OSError:
                    stop.wait(0.02)
                    continue
                if answer.status == 202:
                    break

    threads = [threading.Thread(target=machine) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        stop.wait(0.25)
        server.process.kill()
        server.process.wait()
        server = start_feed(*arguments)
        address[0] = server.url
    for thread in threads:
        thread.join()

    server.reader = server.token("fleet:read")
    (release,) = channel(server)
    assert release["reports"] == release["machines"] == {"installed": 1200}
    assert release["running"] == 1200
    assert server.stop() == 0
