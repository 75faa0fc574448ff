# SPDX-License-Identifier: Apache-2.0
"""What is NATS' own about a log in it: who may, what others do to it, what it forgets.

Most of it went wrong for somebody, in public issues of nats-server and its clients.
"""

import asyncio
import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes.nats import NatsProcess
from fakes.serving import free_port
from fakes.tools import need
from nats.js.errors import APIError, NotFoundError

from updaterd.errors import BrokenError
from updaterd.server.log import registry
from updaterd.server.log.contract import (
    ZERO,
    Event,
    LogDownError,
    Retention,
    Topic,
    read_id,
)
from updaterd.server.log.nats_stream import Streams


def event(number=1, channel="stable"):
    return Event(
        "update_available",
        Topic("acme", channel),
        b'{"product":"acme","seq":%d}' % number,
    )


@pytest.fixture
async def open_log(tmp_path, clock):
    opened = []

    def make(url, retention=Retention()):  # noqa: B008 - frozen
        log = registry.open_log(url, state=tmp_path, retention=retention, now=clock)
        opened.append(log)
        return log

    yield make
    for log in opened:
        await log.close()


@pytest.fixture
def nats(nats_process):
    nats_process.flush()
    return nats_process


@pytest.fixture
def start_nats(tmp_path):
    started = []

    def start(more="", login=""):
        server = NatsProcess(tmp_path / f"nats-{len(started)}", more, login)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.kill()


async def as_another(server, work):
    """Return what somebody else does there meanwhile."""
    return await asyncio.to_thread(server.ask, work)


async def announced(log, *numbers):
    return [await log.append(event(n), f"k{n}") for n in numbers]


async def test_replicas_that_race_with_one_key_append_once(nats, open_log):
    """The window of duplicates of JetStream has no part in it."""
    logs = [open_log(nats.url) for _ in range(3)]
    answers = await asyncio.gather(
        *(log.append(event(n % 4), f"k{n % 4}") for n in range(24) for log in logs)
    )
    assert sum(answer.fresh for answer in answers) == 4
    records = await logs[0].read(ZERO, 99)
    assert len(records) == 4
    positions = [record.position for record in records]
    assert positions == sorted(positions)


class Beaten:
    """A JetStream at which another replica is always a little faster."""

    def __init__(self, js):
        self.js = js
        self.asked = set()

    async def stream_info(self, name):
        if name not in self.asked:
            self.asked.add(name)
            raise NotFoundError
        return await self.js.stream_info(name)

    async def add_stream(self, model, **more):
        await self.js.add_stream(model, **more)
        raise APIError(code=400, err_code=10065, description="subjects overlap")


async def test_streams_that_another_replica_makes_in_this_moment_are_taken(nats):
    """NATS tells the slower one that their subjects are taken."""

    async def prepare(js):
        await Streams("updaterd", 1).prepare(Beaten(js))
        return await js.stream_info("updaterd-state")

    made = await as_another(nats, prepare)
    assert made.config.max_msgs_per_subject == 1


async def test_subjects_of_another_stream_are_not_taken(nats, open_log):
    """And that is told, by what it is."""

    async def other(js):
        await js.add_stream(name="theirs", subjects=["updaterd.event.>"])

    await as_another(nats, other)
    with pytest.raises(LogDownError, match="subjects overlap"):
        await open_log(nats.url).bounds()


async def test_newest_of_a_topic_whose_event_was_purged(nats, open_log):
    """A quiet channel's cursor stays good."""
    log = open_log(nats.url, Retention(count=2, key_s=-1))
    quiet = await log.append(event(0, "quiet"), "q")
    await announced(log, 1, 2, 3, 4)
    await log.trim()

    async def first(js):
        return (await js.stream_info("updaterd")).state.first_seq

    assert await as_another(nats, first) > 1
    newest = await log.newest()
    assert newest[Topic("acme", "quiet")] == read_id(quiet.id)[1]


async def test_server_that_is_killed_when_all_is_trimmed_goes_on_counting(
    start_nats, open_log, clock
):
    """nats-server 6600: a stream that was empty began with 1 again, after a kill."""
    server = start_nats()
    log = open_log(server.url, Retention(age_s=10, key_s=10))
    await announced(log, 1, 2, 3)
    before = await log.bounds()
    clock.ahead = 100
    assert await log.trim() == 3

    async def count(js):
        return (await js.stream_info("updaterd")).state.messages

    assert await as_another(server, count) == 1  # never empty
    server.kill()
    server.start()
    other = open_log(server.url)
    after = await other.bounds()
    assert (after.epoch, after.floor, after.last) == (
        before.epoch,
        before.last,
        before.last,
    )
    assert await other.read(ZERO, 9) == ()
    (appended,) = await announced(other, 4)
    assert appended.position.seq == before.last.seq + 1


async def test_server_from_an_older_backup(start_nats, open_log):
    """Acknowledged events are gone, and their numbers come again: a new epoch."""
    server = start_nats()
    log = open_log(server.url)
    await announced(log, 0)
    server.kill()
    shutil.copytree(server.folder, server.folder.with_name("backup"))
    server.start()
    await announced(log, 1, 2)
    bounds = await log.bounds()
    tail = log.tail(bounds.epoch, bounds.last)
    server.kill()
    shutil.rmtree(server.folder)
    shutil.move(server.folder.with_name("backup"), server.folder)
    server.start()
    other = open_log(server.url)
    await announced(other, 3, 4, 5)  # as far as it had been, and beyond

    async with asyncio.timeout(30):
        batch = await anext(tail)
        while isinstance(batch, LogDownError) or batch.epoch == bounds.epoch:
            batch = await anext(tail)
    await tail.aclose()
    assert batch.gap is not None
    assert (await other.bounds()).epoch == batch.epoch


@pytest.mark.parametrize("stream", ["updaterd", "updaterd-state"])
async def test_one_of_its_streams_is_deleted(nats, open_log, stream):
    """Whatever is left: what was announced is void, and what comes is told."""
    log = open_log(nats.url)
    await announced(log, 0, 1)
    bounds = await log.bounds()
    tail = log.tail(bounds.epoch, bounds.last)
    await as_another(nats, lambda js: js.delete_stream(stream))
    await announced(log, 2)
    async with asyncio.timeout(30):
        batch = await anext(tail)
        assert batch.epoch != bounds.epoch
        records = [*batch.records]
        while not records:
            records += (await anext(tail)).records
    await tail.aclose()
    assert event(2) in [record.event for record in records]


async def test_stream_that_somebody_purged_has_a_higher_floor(nats, open_log):
    """Cursors below miss something and are told so; those above do not."""
    log = open_log(nats.url)
    places = [read_id(a.id)[1] for a in await announced(log, 0, 1, 2, 3)]
    bounds = await log.bounds()
    await as_another(nats, lambda js: js.purge_stream("updaterd", seq=3))
    after = await log.bounds()
    assert after.epoch == bounds.epoch
    assert places[1] <= after.floor < places[2]
    for place, gap in ((places[0], after.floor), (places[2], None)):
        tail = log.tail(bounds.epoch, place)
        async with asyncio.timeout(30):
            batch = await anext(tail)
        await tail.aclose()
        assert batch.gap == gap
        assert batch.records[-1].position == places[3]


async def test_messages_of_a_stranger_end_nothing(nats, open_log):
    """Passed over by reads, by a tail, at a start, and by the next append."""
    log = open_log(nats.url)
    await announced(log, 0)
    bounds = await log.bounds()

    async def disturb(js):
        good = {"Updaterd-Name": "update_available", "Updaterd-Ms": "5"}
        for subject, data, headers in (
            ("updaterd.event.x", b"{}", good),
            ("updaterd.event.acme.stable.x", b"{}", None),
            ("updaterd.event.acme.stable.x", b"{}\n\nevent: resync\ndata: {}", good),
            ("updaterd.event.acme.stable.x", b"\xff", good),
            ("updaterd.event.acme.stable.x", b"{}", {**good, "Updaterd-Ms": "-1"}),
            ("updaterd.event.acme.stable.x", b"{}", {**good, "Updaterd-Name": "a b"}),
        ):
            await js.publish(subject, data, headers=headers)

    await as_another(nats, disturb)
    assert await log.bounds() == bounds
    await announced(log, 1)
    assert [r.event for r in await log.read(ZERO, 9)] == [event(0), event(1)]
    tail = log.tail(bounds.epoch, bounds.last)
    async with asyncio.timeout(30):
        assert [r.event for r in (await anext(tail)).records] == [event(1)]
    await tail.aclose()
    assert set(await log.newest()) == {Topic("acme", "stable")}


async def test_state_that_somebody_wrote_is_no_state(nats, open_log):
    """Neither an end of the process nor cursors that nobody can read."""
    log = open_log(nats.url)
    await announced(log, 0)
    for data in (b"\xff", b"[]", b'{"layout": 2}'):
        await as_another(nats, lambda js, d=data: js.publish("updaterd.state", d))
        with pytest.raises(LogDownError, match="something else has written") as caught:
            await log.bounds()
        assert "delete both" in caught.value.do


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"storage": "memory"}, "storage is not file"),
        ({"max_age": 60}, "max_age"),
        ({"max_msgs": 10}, "max_msgs"),
        ({"max_bytes": 1 << 20}, "max_bytes"),
        ({"max_bytes": 1 << 20, "discard": "new"}, "max_bytes"),
        ({"max_msgs_per_subject": 1}, "max_msgs_per_subject"),
        ({"no_ack": True}, "no_ack"),
        ({"deny_purge": True}, "deny_purge"),
        ({"subjects": ["updaterd.event.acme.>"]}, "subjects"),
        ({"republish": None}, "republish"),
        ({"retention": "interest"}, "retention"),
    ],
)
async def test_stream_that_somebody_made_otherwise_is_refused(
    nats, open_log, how, says
):
    """It would lose events by itself, or nobody would be woken."""
    from nats.js.api import RePublish, StreamConfig

    right = {
        "name": "updaterd",
        "subjects": ["updaterd.event.>"],
        "republish": RePublish("updaterd.event.>", "updaterd.stored.>", True),
    }
    config = StreamConfig(**{**right, **how})
    await as_another(nats, lambda js: js.add_stream(config))
    with pytest.raises(LogDownError, match=says) as refused:
        await open_log(nats.url).append(event(), "k")
    assert "nats stream rm updaterd" in refused.value.do


async def test_server_that_is_full_says_so_and_keeps_what_it_has(start_nats, open_log):
    """It refuses, and forgets nothing; 2.9 did with max_bytes and discard = new."""
    server = start_nats('jetstream: { store_dir: "FOLDER", max_file_store: 20KB }')
    log = open_log(server.url)
    with pytest.raises(LogDownError, match=r"storage|resources") as refused:
        await announced(log, *range(200))
    assert "max_file_store" in refused.value.do
    records = await log.read(ZERO, 200)
    assert [r.event for r in records] == [event(n) for n in range(len(records))]


async def test_server_without_jetstream_says_so(start_nats, open_log):
    server = start_nats("jetstream: disabled")
    with pytest.raises(LogDownError, match=r"JetStream|stream answers") as refused:
        await open_log(server.url).bounds()
    assert "JetStream" in refused.value.do


async def test_old_server_is_warned_about(nats, open_log):
    """Debian 12 has 2.9, which syncs every two minutes, whatever it is told."""
    old = "Version:  2.9." in (nats.folder / "log").read_text()
    log = open_log(nats.url)
    await log.bounds()
    assert any("power cut" in w for w in await log.warnings()) == old


SECRET = "s3cret-and-long"  # noqa: S105 - of a server on loopback
USER = f'authorization {{ user: feed, password: "{SECRET}" }}'
TOKEN = f'authorization {{ token: "{SECRET}" }}'


@pytest.mark.parametrize(
    ("more", "login"), [(USER, f"feed:{SECRET}@"), (TOKEN, f"{SECRET}@")]
)
async def test_password_or_token_lets_in(start_nats, open_log, more, login):
    server = start_nats(more, login)
    await announced(open_log(server.url), 0)
    with pytest.raises(LogDownError, match=r"(?i)authorization") as refused:
        await open_log(server.url.replace(SECRET, "wr0ng-and-long")).bounds()
    error = refused.value
    assert "wr0ng" not in f"{error} {error.do} {error.__cause__!r}"


async def test_nkey_lets_in(start_nats, open_log, tmp_path):
    """A seed in a file: the server knows only the public key."""
    nkeys = pytest.importorskip("nkeys")
    seed = nkeys.encode_seed(b"\x07" * 32, nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(seed).public_key.decode()
    server = start_nats(f"authorization {{ users: [{{ nkey: {public} }}] }}")
    (tmp_path / "feed.nk").write_bytes(seed)
    await announced(open_log(f"{server.url}?nkey={tmp_path}/feed.nk"), 0)
    with pytest.raises(LogDownError, match=r"(?i)authorization"):
        await open_log(server.url).bounds()


def signed(keys, subject, name, **claims):
    """Return a JWT as NATS has them, signed by an nkey."""

    def part(document):
        return part_of(json.dumps(document).encode())

    claims = {
        "jti": name,
        "iat": 1_700_000_000,
        "iss": keys.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": name,
        "nats": {"version": 2, **claims},
    }
    body = part({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + part(claims)
    return (body + b"." + part_of(keys.sign(body))).decode()


def part_of(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


async def test_credentials_of_an_account_let_in(start_nats, open_log, tmp_path):
    """As `nsc` makes them: an operator vouches for an account, that for a user."""
    nkeys = pytest.importorskip("nkeys")
    kinds = ("OPERATOR", "ACCOUNT", "ACCOUNT", "USER")
    seeds = [
        nkeys.encode_seed(bytes([n]) * 32, getattr(nkeys, f"PREFIX_BYTE_{kind}"))
        for n, kind in enumerate(kinds)
    ]
    operator, system, account, user = map(nkeys.from_seed, seeds)
    names = ("subs", "conn", "leaf", "imports", "exports", "data", "payload")
    limits = dict.fromkeys((*names, "disk_storage", "streams", "consumer"), -1)
    accounts = "\n".join(
        f"{keys.public_key.decode()}: "
        + signed(operator, keys, name, type="account", limits=more)
        for keys, name, more in (
            (system, "s", dict.fromkeys(names, -1)),
            (account, "a", limits),
        )
    )
    server = start_nats(
        f"operator: {signed(operator, operator, 'o', type='operator')}\n"
        f"system_account: {system.public_key.decode()}\n"
        f"resolver: MEMORY\nresolver_preload: {{\n{accounts}\n}}"
    )
    jwt = signed(account, user, "u", type="user", subs=-1, data=-1, payload=-1)
    creds = tmp_path / "feed.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seeds[3].decode()}\n"
        "------END USER NKEY SEED------\n"
    )
    await announced(open_log(f"{server.url}?creds={creds}"), 0)
    with pytest.raises(LogDownError, match=r"(?i)authorization"):
        await open_log(server.url).bounds()


async def test_what_is_not_permitted_is_told_at_once(start_nats, open_log):
    """Not as a server that gives no answer."""
    may = 'publish: { deny: ["$JS.API.STREAM.CREATE.>"] }'
    server = start_nats(
        f"authorization {{ users: [{{ user: feed, password: x, "
        f"permissions: {{ {may} }} }}] }}",
        "feed:x@",
    )
    with pytest.raises(LogDownError, match=r"(?i)permissions violation"):
        await open_log(server.url).bounds()


async def test_configuration_in_the_manual_is_enough(start_nats, open_log):
    """With no more permissions than it has there."""
    manual = Path(__file__).parents[2] / "docs/operator.md"
    text = manual.read_text().partition("<!-- nats.conf -->\n```\n")[2]
    config = text.partition("```")[0].replace("/var/lib/nats", "FOLDER")
    config = config.replace(", sync_interval: always", "")  # 2.9 does not know it
    log = open_log(start_nats(config, "feed:PASSWORD@").url, Retention(1, key_s=-1))
    await announced(log, 0, 1, 2)
    assert await log.trim() == 2
    bounds = await log.bounds()
    tail = log.tail(bounds.epoch, bounds.last)
    following = asyncio.ensure_future(anext(tail))
    await announced(log, 3)
    async with asyncio.timeout(30):
        assert [r.event for r in (await following).records] == [event(3)]
    await tail.aclose()
    assert set(await log.newest()) == {Topic("acme", "stable")}


@pytest.fixture
def certificate(tmp_path):
    """One of its own authority, for 127.0.0.1."""
    need("openssl")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=n"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return tmp_path / "cert.pem"


async def test_tls_to_who_it_should_be(start_nats, open_log, certificate):
    """With the authority of the address; with the system's, it is nobody we know."""
    key = certificate.with_name("key.pem")
    server = start_nats(
        f'{USER}\ntls {{ cert_file: "{certificate}", key_file: "{key}" }}',
        f"feed:{SECRET}@",
    )
    url = server.url.replace("nats:", "tls:")
    await announced(open_log(f"{url}?ca={certificate}"), 0)
    with pytest.raises(LogDownError, match=r"(?i)certificate"):
        await open_log(url).bounds()


async def test_attacker_between_who_says_that_there_is_no_tls_hears_no_password(
    open_log, certificate
):
    """The greeting is in the clear, and the library believes it."""
    heard = b""

    async def greet(reader, writer):
        nonlocal heard
        writer.write(
            b'INFO {"version":"2.10.0","headers":true,"max_payload":1048576}\r\n'
        )
        while data := await reader.read(9999):
            heard += data
            if b"PING" in data:
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with server:
        for login in (f"feed:{SECRET}@", f"{SECRET}@", ""):
            url = f"tls://{login}127.0.0.1:{port}?ca={certificate}"
            with pytest.raises(LogDownError, match="secure"):
                await open_log(url).bounds()
    assert SECRET.encode() not in heard
    assert b"SUB" not in heard


@pytest.fixture
def cluster(tmp_path):
    """Three servers, each with a copy of every stream."""
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    servers = [
        NatsProcess(
            tmp_path / f"n{number}",
            f"server_name: n{number}\ncluster {{ name: c, "
            f"listen: 127.0.0.1:{port}, routes: [{routes}] }}",
        )
        for number, port in enumerate(ports)
    ]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.kill()


async def until_taken(log, number):
    """Announce as a release tool does: with one key, until it is acknowledged."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await log.append(event(number), f"k{number}")
            except LogDownError:
                await asyncio.sleep(0.1)


async def test_leader_of_three_is_killed_while_publishing(cluster, open_log):
    """nats-server 3402: nothing acknowledged is lost or doubled, no epoch ends."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in cluster)
    logs = [open_log(f"nats://{hosts}?replicas=3") for _ in range(2)]
    taken = [await until_taken(logs[0], 0)]
    lone = open_log(f"nats://{hosts}?stream=lone")
    await until_taken(lone, 0)  # while all are there: it may be put on any of them
    for log, warns in ((logs[0], False), (lone, True)):
        assert any("one replica" in w for w in await log.warnings()) == warns
    bounds = await logs[0].bounds()
    tail = logs[1].tail(bounds.epoch, bounds.last)

    async def leader(js):
        return (await js.stream_info("updaterd")).cluster.leader

    async def publish(log, numbers):
        for number in numbers:
            taken.append(await until_taken(log, number))
            if number == 11:
                name = await as_another(cluster[0], leader)
                cluster[int(name[1:])].kill()

    received = []

    async def follow():
        async for batch in tail:
            if isinstance(batch, LogDownError):
                continue
            assert (batch.epoch, batch.gap) == (bounds.epoch, None)
            received.extend(batch.records)
            if len(received) == 30:
                break

    async with asyncio.timeout(120):
        await asyncio.gather(
            follow(), publish(logs[0], range(1, 16)), publish(logs[1], range(16, 31))
        )
    await tail.aclose()
    positions = sorted(answer.position for answer in taken)
    assert [record.position for record in received] == positions[1:]
    assert sorted(r.event.data for r in received) == sorted(
        event(n).data for n in range(1, 31)
    )


async def test_second_server_is_taken_when_the_first_is_away(nats, open_log):
    """Addresses of a cluster: any of them will do."""
    away = nats.url.replace(str(nats.port), "1")
    log = open_log(f"{away},127.0.0.1:{nats.port}")
    await announced(log, 0)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nats://feed:100%sure@[::1", "cannot be read"),
        ("nats://feed:sure@h:port", "hosts cannot be read"),
        ("nats://feed:sure@", "hosts cannot be read"),
        ("nats://feed:sure@h/db", "nothing may stand"),
        ("nats://feed:sure@h?creds=/x", "more than one"),
        ("nats://feed:sure@h?ca=/x", "of tls://"),
        ("tls://feed:sure@h?cert=/x", "belong together"),
        ("nats://feed:sure@h?nkey=x", "no absolute path"),
        ("nats://feed:sure@h?stream=a.b", "no name"),
        ("nats://feed:sure@h?replicas=9", "from 1 to 5"),
        ("nats://feed:sure@h?tls=no", "it knows"),
    ],
)
def test_address_that_cannot_be_read_says_why_and_no_password(url, says, tmp_path):
    with pytest.raises(BrokenError, match=says) as refused:
        registry.open_log(url, state=tmp_path, retention=Retention(), now=lambda: 0)
    error = refused.value
    assert "sure" not in f"{error} {error.do} {error.__cause__!r}"
