# SPDX-License-Identifier: Apache-2.0
"""A feed that lies, repeats itself, shouts and never stops, before the real daemon.

Events carry no authority: they can make a machine look, and they can make it look less
often than they are sent. Nothing they say is followed, installed or believed.
"""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakes.origin import Origin
from fakes.rig import Rig
from fakes.waiting import eventually

FLOOD = 20_000


class HostileFeed(ThreadingHTTPServer):
    """Says to every subscriber what it was told to say, and then what comes."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Stream)
        self.said: list[bytes] = []
        self.more = threading.Condition()
        self.over = False
        self.life = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/events"

    def say(self, data: bytes):
        with self.more:
            self.said.append(data)
            self.more.notify_all()

    def restart(self, first: bytes):
        """Cut every stream, forget what was said, and begin again with `first`."""
        with self.more:
            self.said = [first]
            self.life += 1
            self.more.notify_all()

    def close(self):
        with self.more:
            self.over = True
            self.more.notify_all()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_):
        pass


class _Stream(BaseHTTPRequestHandler):
    server: HostileFeed

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        feed, at = self.server, 0
        life = feed.life
        while True:
            with feed.more:
                feed.more.wait_for(
                    lambda at=at: feed.over or feed.life > life or len(feed.said) > at
                )
                if feed.over or feed.life > life:
                    return
                pieces = feed.said[at:]
            at += len(pieces)
            try:
                self.wfile.write(b"".join(pieces))
            except OSError:
                return


@pytest.fixture
def feed():
    made = HostileFeed()
    yield made
    made.close()


@pytest.fixture
def rig(tmp_path, feed):
    made = Rig(tmp_path, feed=feed.url)
    made.push("1.0.0")
    made.machine.start()
    made.machine.wait_for("1.0.0")
    yield made
    made.close()


def event(number: object, **data: object) -> bytes:
    body = {"schema": 1, "product": "acme", "channel": "stable", "version": "6.6.6",
            "seq": 666, **data}  # fmt: skip
    text = json.dumps(body)
    return f"event: update_available\nid: {number}\ndata: {text}\n\n".encode()


def resident_kib(rig: Rig) -> int:
    status = Path(f"/proc/{rig.machine.daemon.pid}/status").read_text()
    (line,) = [one for one in status.splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1])


def looks(rig: Rig) -> int:
    return sum(path.endswith("/timestamp.json") for path in rig.origin.requests)


def lives_on(rig: Rig, feed: HostileFeed, before: dict, version: str):
    """Untouched, alive, a clean log; and the next good release installs."""
    assert rig.machine.daemon.poll() is None
    assert rig.tree() == before
    rig.push(version)
    feed.say(event(f"good-{version}", version=version))
    rig.machine.wait_for(version)
    log = rig.machine.log()
    assert "Traceback" not in log
    assert log.replace("\n", "").isprintable()


def test_event_spoofing(rig, feed, tmp_path):
    """Invented releases, products and addresses: one look each at most, no belief."""
    before = rig.tree()
    with Origin(tmp_path) as lure:
        feed.say(event(1, patch_url=f"{lure.url}/evil", url=f"{lure.url}/evil"))
        feed.say(event(2, product="other"))
        feed.say(event(3, product="../../etc", channel="\x1b[2J", version="$(id)"))
        feed.say(event(4, tuf={"timestamp": "AAAA", "snapshot": "!!!"}))
        feed.say(event(5, tuf={"timestamp": "eJw" * 9999}))
        feed.say(b"event: update_available\nid: 6\ndata: {\ndata: \xff\xfe\n\n")
        feed.say(b"event: update_available\nid: 7\ndata: " + b"[" * 5000 + b"\n\n")
        feed.say(
            b'event: update_available\nid: 8\ndata: {"patch_url":"x","version":1}\n\n'
        )
        feed.say(b"id: 9\x1b]0;owned\x07\nevent: \x1b[2J\ndata: x\n\n: \x1b[2J\n")
        eventually(lambda: looks(rig) >= 2, event="a look")
        lives_on(rig, feed, before, "1.1.0")
        assert lure.requests == []


def test_event_replay(rig, feed):
    """The same ids again and again are one event: they wake nobody twice."""
    feed.say(event("one"))
    eventually(lambda: looks(rig) >= 2, event="a look")
    before, looked = rig.tree(), looks(rig)
    for _ in range(500):
        feed.say(event("one"))
    lives_on(rig, feed, before, "1.1.0")
    assert looks(rig) <= looked + 3, "replayed events made the machine look again"


def test_event_flood(rig, feed):
    """20,000 different announcements (figures printed): few looks, flat memory."""
    before, kib, looked = rig.tree(), resident_kib(rig), looks(rig)
    feed.say(b"".join(event(f"flood-{n}", n=n) for n in range(FLOOD)))
    lives_on(rig, feed, before, "1.1.0")
    after = resident_kib(rig)
    print(
        f"flood: {FLOOD} events, {looks(rig) - looked} looks, daemon {kib} KiB before, "
        f"{after} KiB after"
    )
    assert looks(rig) - looked < FLOOD / 100
    assert after < kib + 8 * 1024


def test_huge_event(rig, feed):
    """A line, an event and a field of 32 MiB each (figures printed): flat memory."""
    before, kib = rig.tree(), resident_kib(rig)
    big = b"x" * (1 << 20)
    for start, each, end in (
        (b"data: ", big, b"\n\n"),
        (b"event: update_available\n", b"data: " + big[:-7] + b"\n", b"\n"),
        (b"id: ", big, b"\ndata: 1\n\n"),
    ):
        feed.say(start + each * 32 + end)
    lives_on(rig, feed, before, "1.1.0")
    after = resident_kib(rig)
    print(f"huge events: daemon {kib} KiB before, {after} KiB after 96 MiB")
    assert after < kib + 12 * 1024


def cost(rig: Rig) -> dict[str, float]:
    """What the daemon has taken of the machine by now."""
    pid = rig.machine.daemon.pid
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    state = rig.machine.root / "state"
    return {
        "log": len(rig.machine.log()),
        "state": sum(f.stat().st_size for f in state.glob("state.db*")),
        "cpu": sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
        "kib": resident_kib(rig),
        "looks": looks(rig),
    }


MALFORMED = b"event: update_available\nid: %d-%s\ndata: {\n\n"
MANY = int(os.environ.get("UPDATERD_FLOOD", "4000"))


@pytest.mark.parametrize(
    "flood",
    [
        b"".join(MALFORMED % (n, b"x" * 3000) for n in range(MANY)),
        b"".join(b"id: %s%d\ndata: x\n\n" % (b"y" * (1 << 20), n) for n in range(5)),
        b'event: update_available\nid: 1\ndata: {"product":"acme","x":['
        + b"[]," * (340 << 10) + b"[]]}\n\n",
        b"event: update_available\nid: 1\ndata: " + b"[" * (1 << 20) + b"\n\n",
        b"".join(b"id: %d\n\n" % n for n in range(50 * MANY)),
        b"".join(b'event: resync\nid: %d\ndata: {"reason":"%s"}\n\n'
                 % (n, b"r" * 250) for n in range(4 * MANY)),
    ],
    ids=["malformed", "long ids", "crowded", "deep", "ids alone", "resyncs"],
)  # fmt: skip
def test_a_feed_that_means_ill_costs_a_look_for_each_burst(rig, feed, flood):
    """No log, no database and no memory fills up (figures printed)."""
    tree, before = rig.tree(), cost(rig)
    feed.say(flood)
    lives_on(rig, feed, tree, "1.1.0")
    after = cost(rig)
    grown = {name: round(after[name] - before[name], 2) for name in before}
    print(f"{len(flood)} bytes: {grown}")
    assert grown["log"] < 64 * 1024
    # its write-ahead log is cut at 4 MiB, later while somebody reads
    assert after["state"] < 8 * 2**20
    assert grown["kib"] < 8 * 1024
    assert grown["looks"] < 20


def test_a_feed_that_counts_in_memory_is_heard_after_its_restart(rig, feed):
    """Its ids start over: 1 and 2 come again with new data, and each means look."""
    feed.say(event(1, n=1) + event(2, n=2))
    eventually(lambda: looks(rig) >= 2, event="a look")
    rig.push("1.1.0")
    feed.restart(event(1, version="1.1.0"))
    rig.machine.wait_for("1.1.0")
    rig.push("1.2.0")
    feed.say(event(2, version="1.2.0"))
    rig.machine.wait_for("1.2.0")
