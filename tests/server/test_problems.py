# SPDX-License-Identifier: Apache-2.0
"""Each 4xx and 5xx, of either sink, is application/problem+json (RFC 9457)."""

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest
from fakes.serving import FeedProcess, announcement, publish, request
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as read_plain

from updaterd.core import codes
from updaterd.server.http.answers import Problems

EVENTS = "/v1/events"
BEARER = {"Authorization": "Bearer {token}", "Idempotency-Key": "k"}
STRANGER = {"Authorization": "Bearer x"}
BLOB = f"/repo/blobs/sha256/ab/{'ab' * 32}"

REFUSED = {
    "a filter that is no name": ("GET", EVENTS + "?product=a/b", {}, 400, "bad_name"),
    "a query that is none": ("GET", EVENTS + "?%FF", {}, 400, "bad_query"),
    "a stream as JSON": (
        "GET", EVENTS, {"Accept": "application/json"}, 406, "not_acceptable"
    ),
    "a stream's head as JSON": (
        "HEAD", EVENTS, {"Accept": "application/json"}, 406, None
    ),
    "DELETE of the feed": ("DELETE", EVENTS, {}, 405, "method_not_allowed"),
    "no token": ("POST", EVENTS, {}, 401, "token_required"),
    "a wrong token": ("POST", EVENTS, STRANGER, 401, "token_required"),
    "no key": ("POST", EVENTS, {"Authorization": "Bearer {token}"}, 400,
               "idempotency_key_required"),
    "no body": ("POST", EVENTS, BEARER, 400, "malformed"),
    "metrics without a token": ("GET", "/metrics", {}, 401, "operate_scope_required"),
    "metrics with a publisher's": ("GET", "/metrics", BEARER, 403,
                                   "operate_scope_required"),
    "no such page": ("GET", "/nowhere", {}, 404, "not_found"),
    "no such file": ("GET", "/repo/metadata/9.root.json", {}, 404, "not_found"),
    "POST of a file": ("POST", "/repo/metadata/1.root.json", {}, 405,
                       "method_not_allowed"),
    "POST of a probe": ("POST", "/healthz", {}, 405, "method_not_allowed"),
    "a range beyond the end": ("GET", BLOB, {"Range": "bytes=99-"}, 416,
                               "range_not_satisfiable"),
    "a range that is none": ("GET", BLOB, {"Range": "bytes=x"}, 400, "bad_request"),
    "a fragment": ("GET", "/healthz#x", {}, 400, "target"),
    "two hosts": ("GET", "/healthz", {"Host": "a b"}, 400, "host"),
    "a head without end": ("GET", "/healthz", {"X": "x" * 40_000}, 431,
                           "head_too_large"),
    "an unknown coding": ("POST", EVENTS, {"Transfer-Encoding": "gzip, chunked"}, 501,
                          "transfer_encoding"),
}  # fmt: skip


@pytest.fixture(scope="module")
def metrics_feed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics") / "state"
    with FeedProcess(folder, "--metrics", "open") as feed:
        publish(feed.url, feed.token("publish:acme/stable"), announcement())
        yield feed


def ask(url, method, target, headers):
    """One request as it is written here: no library corrects it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.putrequest(
            method, target, skip_host="Host" in headers, skip_accept_encoding=True
        )
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def check_problem(status, headers, body, code):
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    document = json.loads(body)
    assert document == {
        "type": f"tag:updaterd.example.org,2026:problem/{code}",
        "title": codes.table()[code].meaning,
        "status": status,
        "detail": document["detail"],
        "code": code,
        "remedy": document["remedy"],
    }
    assert document["detail"]
    assert document["remedy"]


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_is_a_problem(shared_feed, name):
    blob = shared_feed.repository / BLOB.removeprefix("/repo/")
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(b"blob")
    (shared_feed.repository / "metadata/1.root.json").write_text("{}")
    method, target, headers, status, code = REFUSED[name]
    headers = {k: v.format(token=shared_feed.publisher) for k, v in headers.items()}
    got, answer, body = ask(shared_feed.url, method, target, headers)
    assert got == status
    answer = {key.lower(): value for key, value in answer.items()}
    if code is None:
        assert body == b""
    else:
        check_problem(status, answer, body, code)
    if status == 405:
        assert "GET" in answer["allow"]
    if status == 401:
        assert answer["www-authenticate"].startswith("Bearer")


def test_bytes_that_are_no_request(shared_feed):
    """What the parser gives up on is answered in the same form."""
    parts = urlsplit(shared_feed.url)
    with socket.create_connection((parts.hostname, parts.port), 30) as sock:
        sock.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        head, _, body = sock.makefile("rb").read().partition(b"\r\n\r\n")
    assert b" 400 " in head
    headers = dict(
        line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:] if line
    )
    check_problem(400, headers, body, "bad_request")


def test_what_was_wrong_and_what_to_do_are_told_apart(shared_feed):
    """`detail` is of this time, `remedy` says what to do about it."""
    answer = publish(shared_feed.url, shared_feed.publisher, announcement(channel="X"))
    assert answer.status == 400
    assert "channel 'X'" in answer.json["detail"]
    assert "a-z" in answer.json["remedy"]
    other = publish(shared_feed.url, shared_feed.publisher, announcement(product="no"))
    assert other.status == 403
    assert "publish:no/stable" in other.json["remedy"]


def test_head_is_what_get_would_be(start_feed, sink):
    """A private feed tells nobody without a token that a stream would come."""
    feed = start_feed("--sink", sink, "--private")
    url = f"{feed.url}{EVENTS}"
    assert request(url, "HEAD").status == 401
    answer = request(url, "HEAD", authorization=f"Bearer {feed.token('read')}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert (
        request(url, "HEAD", authorization=f"Bearer {feed.token('operate')}").status
        == 403
    )


async def test_mistake_of_the_server_is_a_problem_and_is_raised():
    """500 tells a stranger nothing; the log has the rest."""

    async def broken(scope, receive, send):
        raise ZeroDivisionError("secret")

    sent = []

    async def send(message):
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        await Problems(broken)({"type": "http"}, None, send)
    headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    check_problem(500, headers, sent[1]["body"], "unexpected")
    assert b"secret" not in sent[1]["body"]


OPEN = "application/openmetrics-text"
PROMETHEUS = (
    f"{OPEN};version=1.0.0;escaping=allow-utf-8;q=0.6,{OPEN};version=0.0.1;q=0.5,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        (None, False), ("*/*", False), ("text/html", False), ("text/plain", False),
        (OPEN, True), (PROMETHEUS, True), (f"{OPEN};q=0", False),
        (f"{OPEN};q=0.2,text/plain;q=0.9", False), (f"{OPEN};version=0.0.1", False),
        (f"text/plain;q=0.5, {OPEN}; version=1.0.0; q=0.7", True),
    ],
)  # fmt: skip
def test_scraper_gets_the_format_that_it_likes_best(metrics_feed, accept, is_open):
    headers = {} if accept is None else {"accept": accept}
    answer = request(f"{metrics_feed.url}/metrics", **headers)
    assert answer.status == 200
    assert answer.headers["vary"] == "accept"
    kind = answer.headers["content-type"]
    assert kind.startswith(OPEN if is_open else "text/plain; version=0.0.4")
    assert answer.body.endswith(b"# EOF\n") == is_open


def test_openmetrics_is_what_its_parser_takes(metrics_feed):
    """Each family has its type and help; seconds are a unit; the end is marked."""
    answer = request(f"{metrics_feed.url}/metrics", accept=OPEN)
    families = {f.name: f for f in text_string_to_metric_families(answer.body.decode())}
    first = families["updaterd_publish_to_first_write_seconds"]
    assert (first.type, first.unit) == ("histogram", "seconds")
    assert families["updaterd_log_lag_seconds"].unit == "seconds"
    assert families["updaterd_published"].type == "counter"
    assert families["updaterd"].type == "info"
    assert all(family.documentation for family in families.values())
    plain = request(f"{metrics_feed.url}/metrics").body.decode()
    samples = {s.name for f in read_plain(plain) for s in f.samples}
    assert {s.name for f in families.values() for s in f.samples} == samples
