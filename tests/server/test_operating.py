# SPDX-License-Identifier: Apache-2.0
"""What an operator meets: probes, metrics, logs, start and stop."""

import argparse
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.serving import (
    FeedProcess,
    Reader,
    RedisProcess,
    announcement,
    free_port,
    publish,
    request,
    wait_until,
)
from fakes.tools import need

from updaterd.cli import serve
from updaterd.cli.serve.options import read_options
from updaterd.server.log.contract import Retention
from updaterd.server.log.registry import open_log as open_named
from updaterd.server.options import Options


async def test_metrics_count_what_happened(start_feed, sink):
    """Streams, events, deliveries, drops, lag, publish to first write."""
    feed = start_feed("--sink", sink, "--metrics", "open")
    token = feed.token("publish:acme/stable")
    async with Reader(feed.url) as one, Reader(feed.url) as two:
        await one.next()
        await two.next()
        publish(feed.url, token, announcement())
        await one.next()
        await two.next()
        text = feed.metrics()
    for line in (
        "updaterd_streams 2.0",
        'updaterd_events_total{event="update_available"} 1.0',
        "updaterd_deliveries_total 2.0",
        'updaterd_published_total{outcome="accepted"} 1.0',
        'updaterd_streams_opened_total{kind="hello"} 2.0',
        "updaterd_publish_to_first_write_seconds_count 1.0",
        "updaterd_log_lag_seconds ",
        "updaterd_log_up 1.0",
        "updaterd_streams_most ",
        "updaterd_info{version=",
        "process_open_fds ",
        "process_resident_memory_bytes ",
    ):
        assert line in text
    await feed.streams(0)


def test_metrics_are_for_operators(start_feed):
    """By default a token with `operate`; `off` means there are none."""
    feed = start_feed()
    url = f"{feed.url}/metrics"
    assert request(url).status == 401
    reads = feed.token("read")
    assert request(url, authorization=f"Bearer {reads}").status == 403
    operates = feed.token("operate")
    answer = request(url, authorization=f"Bearer {operates}")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    feed.stop()
    feed.arguments = ("--metrics", "off")
    feed.start()
    off = request(f"{feed.url}/metrics", authorization=f"Bearer {operates}")
    assert off.status == 404


def test_logs_are_one_json_object_a_line(start_feed):
    """With what one searches for: id, product, token; never a secret."""
    feed = start_feed()
    token = feed.token("publish:acme/stable")
    answer = publish(feed.url, token, announcement())
    feed.stop()
    lines = [json.loads(line) for line in feed.log.read_text().splitlines()]
    events = {line["event"]: line for line in lines}
    assert events["listening"]["url"] == feed.url
    assert events["listening"]["sink"] == "fast"
    assert events["listening"]["event_log"] == "embedded"
    assert events["listening"]["most_streams"] > 0
    assert events["announced"]["id"] == answer.json["id"]
    assert events["announced"]["product"] == "acme"
    assert "stopped" in events
    assert token not in feed.log.read_text()


def test_log_stays_json_whatever_strangers_send(start_feed, sink):
    """Garbage is no reason to log, let alone a traceback of many lines."""
    feed = start_feed("--sink", sink)
    host, port = feed.url.removeprefix("http://").split(":")
    before = len(feed.log.read_text().splitlines())
    for garbage in (
        b"\x00\xff\r\n\r\n",
        b"GET /v1/events?product=%ff HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/events HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        with socket.create_connection((host, int(port)), 10) as sock:
            sock.sendall(garbage)
            assert sock.recv(12).startswith(b"HTTP/1.1 ")
    assert request(f"{feed.url}/healthz").status == 200
    lines = feed.log.read_text().splitlines()
    assert [json.loads(line) for line in lines][before:] == []


def refused(*arguments):
    """Start a server that must not start; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "updaterd", "serve", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "what to do" in done.stderr
    return done.stderr


def test_two_servers_on_one_embedded_log_are_refused(start_feed, tmp_path):
    """The second would never hear what the first appends."""
    feed = start_feed()
    said = refused("--port", "0", "--state", feed.state)
    assert "another updaterd process" in said
    assert "--state of its own" in said
    log = f"sqlite://{feed.state / 'feed.db'}"
    said = refused("--port", "0", "--state", tmp_path / "other", "--log", log)
    assert "another updaterd process" in said
    link = tmp_path / "link.db"
    link.symlink_to(feed.state / "feed.db")
    said = refused(
        "--port", "0", "--state", tmp_path / "o", "--log", f"sqlite://{link}"
    )
    assert "another updaterd process" in said


def test_embedded_log_is_in_the_state_directory_whatever_its_name(tmp_path, clock):
    """A path is no URL: `#` and `?` are letters in it."""
    for name in ("a#b", "a?b", "a%20b"):
        state = tmp_path / name
        log = open_named("", state=state, retention=Retention(), now=clock)
        assert log.file == state / "feed.db"


def test_port_in_use_is_told(start_feed, tmp_path):
    """What happened, and what to do."""
    port = start_feed().url.rpartition(":")[2]
    assert port in refused("--port", port, "--state", tmp_path / "other")


def test_damaged_log_is_told(tmp_path):
    """The server does not start with an empty feed instead."""
    (tmp_path / "feed.db").write_bytes(b"this is no database" * 1000)
    said = refused("--port", "0", "--state", tmp_path)
    assert "cannot use the event log" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--repo", "{tmp}/nothing"), "no repository"),
        (("--log", "kafka://x"), "kafka"),
        (("--log", "@{tmp}/nothing"), "URL of the event log"),
        (("--log", "redis://127.0.0.1:notaport/0"), "cannot be read"),
        (("--host", "192.0.2.1"), "192.0.2.1"),
        (("--host", "no.such.host.invalid"), "no.such.host.invalid"),
        (("--tls-cert", "{tmp}/c", "--tls-key", "{tmp}/k"), "certificate"),
        (("--state", "/proc/nothing"), "/proc/nothing"),
        (("--address-file", "{tmp}/no/such/folder"), "address"),
    ],
)
def test_what_cannot_work_is_told_at_the_start(arguments, says, tmp_path):
    """Not at the first request, and not as a traceback."""
    filled = [part.format(tmp=tmp_path) for part in arguments]
    assert says in refused("--port", "0", "--state", tmp_path / "s", *filled)


async def test_log_that_is_down_at_the_start_is_waited_for(tmp_path):
    """The process is up, says it is not ready, and becomes so by itself."""
    redis = RedisProcess(need("redis-server"), tmp_path / "redis")
    redis.port = free_port()
    with FeedProcess(tmp_path / "state", "--log", redis.url) as feed:
        assert request(f"{feed.url}/healthz").status == 200
        assert request(f"{feed.url}/readyz").status == 503
        async with Reader(feed.url) as reader:
            assert reader.status == 503
        with redis:
            wait_until(lambda: request(f"{feed.url}/readyz").status == 200, "ready")
            async with Reader(feed.url) as reader:
                assert (await reader.next()).name == "hello"


def test_redis_that_may_forget_is_warned_about(redis_process, tmp_path):
    """`appendonly` and eviction decide whether an acknowledgement holds."""
    program = redis_process.program
    redis = RedisProcess(program, tmp_path / "redis")
    redis.folder.mkdir()
    with redis:
        command = (b"CONFIG SET appendonly no\r\nCONFIG SET maxmemory-policy "
                   b"allkeys-lru\r\n")  # fmt: skip
        with socket.create_connection(("127.0.0.1", redis.port), 5) as sock:
            sock.sendall(command)
            sock.recv(64)
        with FeedProcess(tmp_path / "state", "--log", redis.url) as feed:
            text = feed.log.read_text()
    assert "appendonly is no" in text
    assert "maxmemory-policy is allkeys-lru" in text


def test_password_of_redis_is_seen_nowhere(redis_process, tmp_path):
    """`--log @FILE`: neither in the list of processes nor in what is logged."""
    redis = RedisProcess(redis_process.program, tmp_path / "redis")
    secret = "correct-horse-battery"  # noqa: S105  of this test
    url = tmp_path / "url"
    with redis:
        with socket.create_connection(("127.0.0.1", redis.port), 5) as sock:
            sock.sendall(f"CONFIG SET requirepass {secret}\r\n".encode())
            assert sock.recv(64).startswith(b"+OK")
        url.write_text(f"redis://:{secret}@127.0.0.1:{redis.port}/0\n")
        with FeedProcess(tmp_path / "state", "--log", f"@{url}") as feed:
            token = feed.token("publish:acme/stable")
            assert publish(feed.url, token, announcement()).status == 201
            command = Path(f"/proc/{feed.process.pid}/cmdline").read_bytes()
            redis.kill()
            assert request(f"{feed.url}/readyz").status == 503
            wait_until(lambda: "log_down" in feed.log.read_text(), "told")
    assert secret.encode() not in command
    assert secret not in feed.log.read_text()


def test_second_signal_stops_at_once(start_feed):
    """Whoever presses Ctrl-C twice means it."""
    feed = start_feed("--grace", "300", "--rate", "1")
    host, port = feed.url.removeprefix("http://").split(":")
    socks = []
    for _ in range(1):
        sock = socket.create_connection((host, int(port)), 10)
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in sock.recv(100)
        socks.append(sock)
    feed.process.send_signal(signal.SIGINT)
    feed.process.send_signal(signal.SIGINT)
    assert feed.stop(signal.SIGINT) == 0
    for sock in socks:
        sock.close()


def test_address_file_goes_with_the_server(start_feed):
    """Nobody finds the address of a server that is gone."""
    feed = start_feed()
    address = feed.log.with_suffix(".address")
    assert address.read_text() == f"{feed.url}\n"
    feed.stop()
    assert not address.exists()


def test_help_explains(tmp_path):
    """Both commands say what they are for, with examples."""
    for command in ("serve", "token"):
        done = subprocess.run(
            [sys.executable, "-m", "updaterd", command, "--help"],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert "examples:" in done.stdout


def test_every_default_of_the_command_is_the_servers(tmp_path):
    """One home: what is not named on the command line is what `Options` says."""
    parser = argparse.ArgumentParser()
    serve.configure(parser)
    arguments = parser.parse_args(["--state", str(tmp_path)])
    assert read_options(arguments) == Options(state=tmp_path)


def test_embedded_log_loads_no_redis():
    """7 MiB that only replicas need."""
    code = "import sys, updaterd.server.process; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
