# SPDX-License-Identifier: Apache-2.0
"""Several processes that serve one address, and their end, one by one and together."""

import asyncio
import os
import re
import signal
import socket
import zlib
from pathlib import Path

import pytest
from fakes.serving import DEADLINE_S, Reader, announcement, publish, request

from updaterd.server.streams.ledger import SharedLedger, make_memory


def workers_of(feed):
    children = Path(f"/proc/{feed.process.pid}/task/{feed.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  others' processes
            await asyncio.sleep(0.02)


def count(feed, name):
    found = re.search(rf"^{name} (\d+)\.", feed.metrics(), re.MULTILINE)
    return int(found[1]) if found else 0


class Crowd:
    """Readers that come back with their cursor, as clients do; all that they got."""

    def __init__(self, url, size):
        self.url = url
        self.numbers = [[] for _ in range(size)]
        self.refused = 0
        self.cut = 0
        self.unanswered = 0
        self.tasks = []

    async def __aenter__(self):
        opened = [asyncio.Event() for _ in self.numbers]
        self.tasks = [
            asyncio.create_task(self._read(numbers, event))
            for numbers, event in zip(self.numbers, opened, strict=True)
        ]
        for event in opened:
            await asyncio.wait_for(event.wait(), DEADLINE_S)
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _read(self, numbers, opened):
        cursor = ""
        while True:
            headers = {"Last-Event-ID": cursor} if cursor else {}
            try:
                async with Reader(self.url, headers=headers) as reader:
                    if reader.status != 200:
                        self.refused += 1
                        await asyncio.sleep(0.05)
                        continue
                    while (event := await reader.next()) is not None:
                        opened.set()
                        cursor = event.id
                        if event.name == "update_available":
                            numbers.append(event.json["seq"])
                    self.cut += not reader.ended
            except ConnectionRefusedError:
                self.refused += 1
                await asyncio.sleep(0.05)
            except (OSError, asyncio.IncompleteReadError):
                self.unanswered += 1

    async def got(self, numbers):
        await until(lambda: all(each == numbers for each in self.numbers))


def announce(feed, token, number):
    """Announce until it is taken, as `updaterd release announce` does."""
    for _ in range(200):
        try:
            answer = publish(feed.url, token, announcement(seq=number), key=str(number))
        except OSError:
            continue
        if answer.status == 201:
            return
    raise AssertionError(answer)


@pytest.fixture
def host(start_feed):
    return start_feed(
        *("--workers", "2", "--metrics", "open", "--grace", "2", "--rate", "1000"),
        *("--max-per-address", "30"),
    )


async def test_workers_that_die_and_are_replaced_lose_nothing(host):
    """An event reaches the streams of all; who dies costs its own; who leaves, none."""
    feed, token = host, host.token("publish:acme/stable")
    async with Crowd(feed.url, 24) as crowd:
        announce(feed, token, 1)
        await crowd.got([1])
        assert count(feed, "updaterd_streams") == 24
        assert count(feed, "updaterd_workers") == 2
        assert count(feed, "updaterd_deliveries_total") == 24

        # the cap is the host's, whichever worker is asked
        others = [Reader(feed.url) for _ in range(12)]
        statuses = []
        for other in others:
            async with asyncio.timeout(DEADLINE_S):
                await other.__aenter__()
            statuses.append(other.status)
        for other in others:
            await other.__aexit__()
        assert statuses == [200] * 6 + [429] * 6
        await until(lambda: count(feed, "updaterd_streams") == 24)

        victim = workers_of(feed)[0]
        os.kill(victim, signal.SIGKILL)
        announce(feed, token, 2)
        await crowd.got([1, 2])
        assert 0 < crowd.cut + crowd.unanswered < 24  # the others' streams went on
        await until(lambda: len(workers_of(feed)) == 2)
        assert victim not in workers_of(feed)

        before, crowd.cut, crowd.refused = set(workers_of(feed)), 0, 0
        feed.process.send_signal(signal.SIGHUP)
        for number in range(3, 8):
            announce(feed, token, number)
        await until(lambda: len(set(workers_of(feed)) - before) == 2)
        await until(lambda: not before & set(workers_of(feed)))
        announce(feed, token, 8)
        await crowd.got([*range(1, 9)])
        assert (crowd.cut, crowd.refused) == (0, 0)
    assert await asyncio.to_thread(feed.stop) == 0
    assert request_fails(feed.url)


def request_fails(url):
    try:
        request(f"{url}/healthz")
    except OSError:
        return True
    return False


@pytest.mark.parametrize("workers", [1, 2])
async def test_restart_with_a_socket_that_stays_refuses_nobody(start_feed, workers):
    """As under systemd: the socket is not the service's, and outlives it."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        os.set_inheritable(sock.fileno(), True)
        # what systemd does before it executes a service
        adopt = f'exec 3<&{sock.fileno()}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
        prefix = ("bash", "-c", adopt, "-")
        arguments = ("--workers", workers, "--metrics", "open", "--grace", "1")

        def start():
            # Popen closes what is not passed; the socket is found by its path
            return start_feed(*arguments, prefix=prefix, pass_fds=(sock.fileno(),))

        feed = start()
        assert feed.url == url
        token = feed.token("publish:acme/stable")
        async with Crowd(url, 12) as crowd:
            announce(feed, token, 1)
            await crowd.got([1])
            assert await asyncio.to_thread(feed.stop) == 0
            again = await asyncio.to_thread(start)
            announce(again, token, 2)
            await crowd.got([1, 2])
            assert (crowd.cut, crowd.refused) == (0, 0)


def test_what_a_dead_process_counted_is_forgotten_and_nothing_else():
    fd = make_memory(3)
    first, second, owner = (SharedLedger(fd, seats=3, seat=n) for n in range(3))
    for ledger in (first, second):
        ledger.add(("192.0.2.1", "token a"), 1)
    second.add(("192.0.2.2",), 1)
    assert (owner.total(), first.of("192.0.2.1"), first.of("192.0.2.2")) == (3, 2, 1)
    owner.clear(1)
    assert (owner.total(), first.of("192.0.2.1"), first.of("192.0.2.2")) == (1, 1, 0)
    first.add(("192.0.2.1", "token a"), -1)
    assert (owner.total(), owner.of("192.0.2.1"), owner.of("token a")) == (0, 0, 0)


def test_strangers_are_hardly_ever_counted_for_each_other():
    """50,000 addresses with a stream each: nobody is near a limit of 30."""
    ledger = SharedLedger(make_memory(1), seats=1, seat=0)
    keys = [f"2001:db8:{n >> 8:x}:{n & 255:x}::" for n in range(50_000)]
    for key in keys:
        ledger.add((key,), 1)
    assert max(map(ledger.of, keys)) < 15


def test_nobody_chooses_addresses_by_which_another_reaches_his_limit():
    """A /48 holds enough of them to meet any victim in both tables of a known hash."""
    victim = "198.51.100.7"
    number = zlib.crc32(victim.encode())
    meets = {
        key
        for key in (f"2001:db8:0:{n:x}::" for n in range(1 << 16))
        for other in [zlib.crc32(key.encode())]
        if not (number ^ other) & 0x3FFF or not (number ^ other) >> 14 & 0x3FFF
    }
    assert len(meets) > 2
    ledger = SharedLedger(make_memory(1), seats=1, seat=0)
    for key in meets:
        for _ in range(30):
            ledger.add((key,), 1)
    assert ledger.of(victim) == 0


async def test_a_folder_with_a_false_updaterd_gives_workers_nothing(
    start_feed, tmp_path, monkeypatch
):
    """Whoever starts the server in /tmp runs no module that lies there."""
    hostile = tmp_path / "shared"
    (hostile / "updaterd").mkdir(parents=True)
    loot = tmp_path / "loot"
    for name in ("__init__", "__main__"):
        (hostile / "updaterd" / f"{name}.py").write_text(f"open({str(loot)!r}, 'w')\n")
    monkeypatch.chdir(hostile)
    isolated = ("/bin/sh", "-c", 'exec "$0" -P "$@"')  # as the installed command is
    start_feed("--workers", 2, prefix=isolated)
    assert not loot.exists()
