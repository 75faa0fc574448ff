# SPDX-License-Identifier: Apache-2.0
"""Three in the morning: what broke is said, what was acknowledged stays."""

import asyncio
import contextlib
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.serving import (
    Reader,
    RedisProcess,
    announcement,
    publish,
    request,
    wait_until,
)
from fakes.tools import need, need_root

from updaterd.server.tokens import Tokens


async def test_full_disk_loses_nothing_that_was_acknowledged(start_feed):
    """503 with the real cause while it is full; then the same keys go through."""
    feed = start_feed()
    token = feed.token("publish:acme/stable")
    async with Reader(feed.url) as reader:
        assert (await reader.next()).name == "hello"
        assert publish(feed.url, token, announcement(seq=1), "k1").status == 201
        wal = (feed.state / "feed.db-wal").stat().st_size
        unlimited = resource.prlimit(feed.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(feed.process.pid, resource.RLIMIT_FSIZE, (wal, unlimited[1]))
        for number in range(2, 12):
            body = announcement(seq=number)
            refused = publish(feed.url, token, body, f"k{number}")
            assert refused.status == 503
            assert "disk" in refused.says
            assert "rollback" not in refused.says
        assert request(f"{feed.url}/readyz").status == 200  # it serves streams
        resource.prlimit(feed.process.pid, resource.RLIMIT_FSIZE, unlimited)
        for number in range(1, 12):
            body = announcement(seq=number)
            assert publish(feed.url, token, body, f"k{number}").status == 201
        got = await reader.take(11)
    assert [event.json["seq"] for event in got] == list(range(1, 12))


@pytest.fixture
def small_disk(tmp_path):
    """A folder on an ext4 of 4 MiB whose blocks are smaller than a page."""
    need_root()
    image, folder = tmp_path / "disk.img", tmp_path / "small"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    folder.mkdir()
    make = [need("mkfs.ext4"), "-q", "-F", "-b", "1024", "-m", "0", image]
    subprocess.run(make, check=True)
    subprocess.run([need("mount"), "-o", "loop", image, folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder):
    with (folder / "ballast").open("ab", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


async def test_restart_on_a_full_disk_serves_what_is_there(
    small_disk, start_feed, tmp_path
):
    """Streams and their catch-up go on; announcements wait, and say for what."""
    state = small_disk / "state"
    feed = start_feed(state=state)
    token = feed.token("publish:acme/stable")
    first = publish(feed.url, token, announcement(seq=1), "k1").json["id"]
    assert publish(feed.url, token, announcement(seq=2), "k2").status == 201
    feed.log = tmp_path / "serve.log"
    for stop in (signal.SIGTERM, signal.SIGKILL):
        feed.stop(stop)
        fill(small_disk)
        feed.start()
        async with Reader(feed.url, headers={"Last-Event-ID": first}) as reader:
            assert (await reader.next()).json["seq"] == 2
        refused = publish(feed.url, token, announcement(seq=3), "k3")
        assert refused.status == 503
        assert "free disk space" in refused.says
    (small_disk / "ballast").unlink()

    assert publish(feed.url, token, announcement(seq=3), "k3").status == 201


def test_sighup_reloads_and_ends_nothing(start_feed):
    """As its unit's ExecReload sends it, or a terminal that closes."""
    feed = start_feed("--private")
    token = feed.token("read")
    url = f"{feed.url}/v1/events"
    feed.process.send_signal(signal.SIGHUP)
    wait_until(lambda: '"reloaded"' in feed.log.read_text(), "the reload")

    bearer = {"authorization": f"Bearer {token}"}
    assert request(url, "HEAD", **bearer).status == 200
    assert feed.process.poll() is None
    unit = Path(__file__).parents[2] / "systemd/updaterd-feed.service"
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit.read_text()


@pytest.mark.parametrize("damage", ["{", '{"schema": 1, "tokens": [{}]}', None])
def test_damaged_tokens_are_told_once_and_to_the_operator_only(
    start_feed, tmp_path, damage
):
    """A stranger gets 503 without detail, the log one line for all requests."""
    (tmp_path / "public/metadata").mkdir(parents=True)
    feed = start_feed("--private", "--repo", tmp_path / "public")
    publisher, kept = feed.token("publish:acme/*"), (feed.state / "tokens.json")
    whole = kept.read_bytes()
    if damage is None:
        kept.unlink()
        kept.mkdir()
    else:
        kept.write_text(damage)
    bearer = {"authorization": "Bearer upd_x"}
    for _ in range(3):
        answers = [
            request(f"{feed.url}/metrics", **bearer),
            request(f"{feed.url}/repo/metadata/timestamp.json", **bearer),
            request(f"{feed.url}/v1/events", **bearer),
            publish(feed.url, publisher, announcement()),
        ]
        assert [503] * 4 == [answer.status for answer in answers]
        for answer in answers:
            assert (
                str(feed.state).encode()
                not in answer.body + str(answer.headers).encode()
            )
    text = feed.log.read_text()
    assert 1 == text.count("tokens_unreadable")
    assert "Traceback" not in text
    if damage is None:
        kept.rmdir()
    kept.write_bytes(whole)
    assert publish(feed.url, publisher, announcement()).status == 201


def test_damaged_pages_are_told_at_the_start(start_feed):
    """A file that opens, but whose pages are not what they were."""
    feed = start_feed()
    token = feed.token("publish:acme/stable")
    for number in range(1, 50):
        publish(feed.url, token, announcement(seq=number))
    feed.stop()
    path = feed.state / "feed.db"
    pages = bytearray(path.read_bytes())
    for start in range(4096, len(pages), 4096):
        pages[start : start + 200] = b"\xde\xad" * 100
    path.write_bytes(pages)
    command = (sys.executable, "-m", "updaterd", "serve", "--state", str(feed.state))
    done = subprocess.run(
        [*command, "--port", "0"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"cannot use the event log {path}" in done.stderr
    assert "moved away" in done.stderr


def test_log_that_was_deleted_under_the_server_takes_nothing(start_feed):
    """An acknowledgement from a file without a name would not outlive the process."""
    feed = start_feed()
    token = feed.token("publish:acme/stable")
    assert publish(feed.url, token, announcement(), "k").status == 201
    for path in feed.state.glob("feed.db*"):
        path.unlink()
    refused = publish(feed.url, token, announcement(seq=2), "k2")
    assert refused.status == 503
    assert "moved or deleted" in refused.says
    assert request(f"{feed.url}/readyz").status == 503
    feed.stop()
    feed.start()
    assert publish(feed.url, token, announcement(seq=2), "k2").status == 201


async def test_streams_leave_files_for_probes_and_refusals(start_feed, sink):
    """`ulimit -n 256`: who does not fit is told when to come back; probes go on."""
    feed = start_feed(
        *("--sink", sink, "--max-per-address", "0", "--metrics", "open"),
        prefix=("prlimit", "--nofile=256"),
    )
    assert "few_files" in feed.log.read_text()
    host, port = feed.url.removeprefix("http://").split(":")
    said, socks = [], []
    for _ in range(200):
        sock = socket.create_connection((host, int(port)), 10)
        sock.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        said.append(sock.recv(300))
        socks.append(sock)
    streams = [head for head in said if b" 200 " in head]
    refusals = [head for head in said if b" 503 " in head]
    assert len(streams) >= 100
    assert len(streams) + len(refusals) == 200
    assert all(b"retry-after: " in head for head in refusals)
    assert request(f"{feed.url}/healthz").status == 200
    for sock in socks:
        sock.close()
    await feed.streams(0)


async def test_revoked_token_ends_its_streams(start_feed, sink):
    """With the next heartbeat, not half an hour later; others go on."""
    feed = start_feed("--sink", sink, "--private", "--heartbeat", "0.2")
    tokens = [feed.token("read"), feed.token("read")]
    bearer = [{"Authorization": f"Bearer {token}"} for token in tokens]
    async with (
        Reader(feed.url, headers=bearer[0]) as one,
        Reader(feed.url, headers=bearer[1]) as other,
    ):
        assert (await one.next()).name == "hello"
        assert (await other.next()).name == "hello"
        kept = Tokens(feed.state)
        kept.revoke(kept.all()[0].id)
        ends = {asyncio.create_task(r.next()): r for r in (one, other)}
        done, going = await asyncio.wait(
            ends, timeout=30, return_when=asyncio.FIRST_COMPLETED
        )
        assert [task.result() for task in done] == [None]
        (stays,) = (ends[task] for task in going)
        beats = stays.heartbeats
        async with asyncio.timeout(30):
            while stays.heartbeats < beats + 5:  # noqa: ASYNC110  counted by a task
                await asyncio.sleep(0.05)
        for task in going:
            task.cancel()
        await asyncio.wait(going)


@pytest.mark.parametrize(
    ("setting", "back", "says"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "raise Redis' maxmemory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "a replica"),
    ],
)
async def test_redis_that_refuses_is_told_with_its_remedy(
    setting, back, says, redis_process, start_feed, tmp_path
):
    """Full, or demoted: streams stay, publishers get 503, the same key goes through."""
    redis = RedisProcess(redis_process.program, tmp_path / "redis")

    def order(line):
        with socket.create_connection(("127.0.0.1", redis.port), 10) as sock:
            sock.sendall(line.encode() + b"\r\n")
            assert sock.recv(64).startswith(b"+OK")

    with redis:
        feed = start_feed("--log", redis.url)
        token = feed.token("publish:acme/stable")
        async with Reader(feed.url) as reader:
            assert (await reader.next()).name == "hello"
            order(setting)
            refused = publish(feed.url, token, announcement(), "k")
            assert refused.status == 503
            assert says in refused.says
            assert request(f"{feed.url}/readyz").status == 200  # it serves streams
            order(back)
            wait_until(
                lambda: publish(feed.url, token, announcement(), "k").status == 201,
                "announced",
            )
            assert (await reader.next()).name == "update_available"
        feed.stop()
