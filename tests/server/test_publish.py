# SPDX-License-Identifier: Apache-2.0
"""Announcing: what is taken, what is refused, and how it is told."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import zlib

import pytest
from fakes.repository import Publisher
from fakes.serving import DEADLINE_S, Reader, announcement, make_token, publish, request
from hypothesis import given
from hypothesis import strategies as st

from updaterd.errors import MalformedError, RejectedError
from updaterd.release.keychange import change as keychange
from updaterd.release.keychange import edits
from updaterd.server.http.publish import (
    MetadataWatch,
    StaleMetadataError,
    read_announcement,
)
from updaterd.server.log.contract import Event, Position, Record, Topic
from updaterd.server.options import Options
from updaterd.server.process import FeedServer
from updaterd.server.tokens import Tokens


@pytest.fixture(scope="module")
def sink():
    """Once is enough: sinks only write streams."""
    return "fast"


def signed(role, version=1, **more):
    return {
        "signatures": [{"keyid": "k", "sig": "s"}],
        "signed": {
            "_type": role,
            "version": version,
            "expires": "2030-01-01T00:00:00Z",
            **more,
        },
    }


def timestamp(version=1, snapshot=1):
    return signed("timestamp", version, meta={"snapshot.json": {"version": snapshot}})


def pack(document):
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.b64encode(zlib.compress(raw)).decode()


def event_with(document, snapshot=None, **changes):
    tuf = {"timestamp": pack(document)}
    if snapshot is not None:
        tuf["snapshot"] = pack(snapshot)
    return read_announcement(json.dumps(announcement(tuf=tuf, **changes)).encode())


def test_announcement_is_stored_as_the_contract_has_it():
    """Members of the contract, defaults filled in, nothing else passed on."""
    body = announcement("1.2.3", seq=4)
    del body["urgency"], body["spread_s"]
    body["patch_url"] = "https://evil.example"
    event = read_announcement(json.dumps(body).encode())
    assert event.name == "update_available"
    assert event.topic == Topic("acme", "stable")
    assert json.loads(event.data) == announcement("1.2.3", seq=4)
    assert b"\n" not in event.data


def test_metadata_alone_is_for_everyone():
    """Without a product it is a `metadata` event."""
    tuf = {"timestamp": pack(timestamp())}
    event = read_announcement(json.dumps({"schema": 1, "tuf": tuf}).encode())
    assert (event.name, event.topic) == ("metadata", Topic(None, None))
    assert json.loads(event.data) == {"schema": 1, "tuf": tuf}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"schema": "1"}, {"schema": True}, {"product": "A b"},
        {"product": "../x"}, {"product": 5}, {"channel": ""}, {"channel": None},
        {"version": "a\nb"}, {"version": 5}, {"seq": -1}, {"seq": 1.5}, {"seq": "1"},
        {"urgency": "now"}, {"spread_s": -1}, {"spread_s": 1e9}, {"tuf": []},
        {"tuf": {}}, {"tuf": {"timestamp": 1}}, {"seq": 2**60},
    ],
)  # fmt: skip
def test_malformed_announcement_is_refused(change):
    """Each member is checked."""
    with pytest.raises(MalformedError):
        read_announcement(json.dumps(announcement() | change).encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_announcement_or_refused(body):
    """No input ends in anything but a typed error."""
    with contextlib.suppress(RejectedError):
        read_announcement(body)


@pytest.mark.parametrize(
    "document",
    [
        b"no JSON",
        {"signed": {}},
        signed("root"),
        signed("timestamp", 0),
        signed("timestamp", "1"),
        timestamp() | {"signatures": []},
        b"{" + b" " * 100_000 + b"}",  # inflates beyond any timestamp
    ],
)
def test_pushed_metadata_that_does_not_parse_is_refused(document):
    """Clients would refuse it: so does the server, once."""
    with pytest.raises(MalformedError):
        MetadataWatch(None).check(event_with(document))


@pytest.mark.parametrize("text", ["%%%", "QUJD", pack(timestamp())[:-8]])
def test_pushed_metadata_that_does_not_unpack_is_refused(text):
    """Base64 and zlib are checked, too."""
    event = read_announcement(
        json.dumps(announcement(tuf={"timestamp": text})).encode()
    )
    with pytest.raises(MalformedError):
        MetadataWatch(None).check(event)


def test_snapshot_must_be_the_one_that_the_timestamp_names():
    """A mixed pair would cost every client a failed refresh."""
    watch = MetadataWatch(None)
    watch.check(event_with(timestamp(5, snapshot=3), signed("snapshot", 3)))
    with pytest.raises(MalformedError):
        watch.check(event_with(timestamp(6, snapshot=4), signed("snapshot", 3)))


def test_metadata_older_than_served_is_refused(tmp_path):
    """As old as served is fine: that is what a publisher has just published."""
    served = tmp_path / "timestamp.json"
    served.write_text(json.dumps(timestamp(7)))
    watch = MetadataWatch(served)
    watch.check(event_with(timestamp(7)))
    watch.check(event_with(timestamp(8)))
    with pytest.raises(StaleMetadataError):
        watch.check(event_with(timestamp(6)))


def test_metadata_older_than_announced_is_refused():
    """Also without files, and when another replica took the announcement."""
    watch = MetadataWatch(None)
    watch.remember(Record(Position(1, 0), event_with(timestamp(9))))
    with pytest.raises(StaleMetadataError):
        watch.check(event_with(timestamp(8)))


LAST = 2**53 - 1


def test_one_products_token_cannot_end_anothers_announcements():
    """Unsigned, of the highest version there is: it counts for that product alone."""
    watch = MetadataWatch(None)
    watch.remember(Record(Position(1, 0), event_with(timestamp(LAST), product="other")))
    watch.check(event_with(timestamp(8)))
    tuf = {"schema": 1, "tuf": {"timestamp": pack(timestamp(8))}}
    watch.check(read_announcement(json.dumps(tuf).encode()))
    with pytest.raises(StaleMetadataError):
        watch.check(event_with(timestamp(8), product="other"))


class TestWithTheRoot:
    """The repository is at hand: only what its keys signed passes, and counts."""

    @pytest.fixture
    def publisher(self, tmp_path):
        made = Publisher(tmp_path / "ops", products=("acme", "other"))
        made.release("1.0.0")
        return made

    @staticmethod
    def event(publisher, **changes):
        pushed = publisher.pushed()
        return event_with(pushed.timestamp, pushed.snapshot, **changes)

    @pytest.mark.parametrize("by", ["repository", "file"])
    def test_a_stolen_token_cannot_say_what_is_newest(self, publisher, tmp_path, by):
        """Neither now, nor with what an older server has left in the log."""
        root = tmp_path / "root.json"
        root.write_bytes(publisher.bootstrap)
        served = publisher.metadata / "timestamp.json"
        watch = (
            MetadataWatch(served) if by == "repository" else MetadataWatch(None, root)
        )
        forged = json.loads(publisher.pushed().timestamp)
        forged["signed"]["version"] = LAST
        for wrong in (timestamp(LAST), forged):
            with pytest.raises(MalformedError) as caught:
                watch.check(event_with(wrong, product="other"))
            assert caught.value.code == "metadata_forged"
            watch.remember(Record(Position(1, 0), event_with(wrong, product="other")))
        watch.check(self.event(publisher))
        old = self.event(publisher)
        publisher.release("1.1.0")
        watch.check(self.event(publisher))
        watch.remember(Record(Position(1, 1), self.event(publisher, product="other")))
        with pytest.raises(StaleMetadataError):
            watch.check(old)

    def test_a_snapshot_that_nobody_signed_is_refused(self, publisher):
        watch = MetadataWatch(publisher.metadata / "timestamp.json")
        forged = json.loads(publisher.pushed().snapshot)
        forged["signed"]["meta"]["acme.stable.json"]["version"] += 1
        with pytest.raises(MalformedError):
            watch.check(event_with(publisher.pushed().timestamp, forged))

    def test_what_a_stolen_key_counted_to_goes_with_the_key(self, publisher):
        """Online key stolen and used at its worst; a new root: announcements go on."""
        watch = MetadataWatch(publisher.metadata / "timestamp.json")
        before = publisher.pushed().timestamp
        repository = publisher.open()
        repository.timestamp.version = 2**40
        repository.touch("timestamp")
        repository.commit()
        stolen = Record(Position(1, 0), self.event(publisher))
        watch.check(stolen.event)
        watch.remember(stolen)
        (publisher.metadata / "timestamp.json").write_bytes(before)
        ring = publisher.space.keyring
        old = ring.retire("online")
        change = edits.replace_key(old.public, ring.ensure("online").public)
        keychange.propose(publisher.space, publisher.open(), change)
        watch.check(self.event(publisher))


def test_unreadable_event_of_the_log_is_no_reason_to_stop():
    """A log may hold what an older server let in."""
    watch = MetadataWatch(None)
    data = b'{"tuf":{"timestamp":"x"}}'
    watch.remember(Record(Position(1, 0), Event("metadata", Topic(None, None), data)))
    assert watch.newest() == 0


class TestOverHttp:
    """`POST /v1/events` as release tools meet it."""

    def test_same_key_is_answered_alike_and_sent_once(self, shared_feed):
        """An answer that got lost can be asked for again."""
        first = publish(shared_feed.url, shared_feed.publisher, announcement(), "k1")
        again = publish(shared_feed.url, shared_feed.publisher, announcement(), "k1")
        assert (first.status, again.status) == (201, 201)
        assert first.json["id"] == again.json["id"]
        assert again.headers["idempotent-replayed"] == "true"

    async def test_answer_says_how_many_listen(self, start_feed):
        """Whoever pushes sees whom it reaches: streams of that channel, no others."""
        feed = start_feed()
        token = feed.token("publish:acme/stable")
        async with (
            Reader(feed.url, "?product=acme&channel=stable") as one,
            Reader(feed.url) as other,
            Reader(feed.url, "?product=acme&channel=beta") as third,
        ):
            for reader in (one, other, third):
                assert (await reader.next()).name == "hello"
            answer = await asyncio.to_thread(publish, feed.url, token, announcement())
        assert (answer.status, answer.json["streams"]) == (201, 2)

    def test_repetition_after_newer_metadata_is_answered_alike(self, start_feed):
        """A lost answer stays the same, though the same metadata would be late now."""
        feed = start_feed()
        token = feed.token("publish:acme/stable")
        old = {"schema": 1, "tuf": {"timestamp": pack(timestamp(9))}}
        new = {"schema": 1, "tuf": {"timestamp": pack(timestamp(10))}}
        first = publish(feed.url, token, old, "k")
        assert publish(feed.url, token, new, "k2").status == 201
        again = publish(feed.url, token, old, "k")
        assert (again.status, again.json["id"]) == (201, first.json["id"])
        assert publish(feed.url, token, old, "k3").status == 409

    def test_restarted_server_knows_what_was_announced(self, start_feed):
        """Older metadata is refused by the log's memory, not by the process's."""
        feed = start_feed()
        token = feed.token("publish:acme/stable")
        new = {"schema": 1, "tuf": {"timestamp": pack(timestamp(9))}}
        assert publish(feed.url, token, new).status == 201
        feed.stop()
        feed.start()
        old = {"schema": 1, "tuf": {"timestamp": pack(timestamp(8))}}
        answer = publish(feed.url, token, old)
        assert (answer.status, answer.json["code"]) == (409, "metadata_older")

    def test_refusals_are_told_to_the_operator(self, start_feed):
        """Why a release did not go out is in the log; strangers are only counted."""
        feed = start_feed("--metrics", "open")
        token = feed.token("publish:acme/stable")
        publish(feed.url, token, announcement(channel="beta"))
        publish(feed.url, token, announcement() | {"urgency": "now"})
        publish(feed.url, "stranger", announcement())
        assert 'updaterd_published_total{outcome="refused"} 3.0' in feed.metrics()
        feed.stop()
        lines = [json.loads(line) for line in feed.log.read_text().splitlines()]
        told = [x["code"] for x in lines if x["event"] == "announcement_refused"]
        assert told == ["scope_missing", "malformed"]
        assert token not in feed.log.read_text()

    def test_key_of_another_announcement(self, shared_feed):
        """422: the publisher has a bug."""
        publish(shared_feed.url, shared_feed.publisher, announcement(), "k2")
        other = publish(
            shared_feed.url, shared_feed.publisher, announcement(seq=2), "k2"
        )
        assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")

    def test_keys_belong_to_their_tokens(self, shared_feed):
        """Two publishers cannot disturb each other with equal keys."""
        other = make_token(shared_feed.state, "publish:acme/stable")
        one = publish(shared_feed.url, shared_feed.publisher, announcement(), "k3")
        two = publish(shared_feed.url, other, announcement(), "k3")
        assert one.json["id"] != two.json["id"]

    def test_without_key(self, shared_feed):
        """A publisher that could announce twice is told so at once."""
        answer = request(
            f"{shared_feed.url}/v1/events",
            "POST",
            b"{}",
            authorization=f"Bearer {shared_feed.publisher}",
        )
        assert (answer.status, answer.json["code"]) == (
            400,
            "idempotency_key_required",
        )

    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic YTpi"])
    def test_without_token(self, shared_feed, header):
        """401, and how to do better."""
        answer = request(
            f"{shared_feed.url}/v1/events",
            "POST",
            json.dumps(announcement()).encode(),
            authorization=header,
            idempotency_key="k4",
        )
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")

    def test_scope_is_product_and_channel(self, shared_feed):
        """The token may publish acme/* and other/stable."""
        for product, channel, status in (
            ("acme", "beta", 201),
            ("other", "stable", 201),
            ("other", "beta", 403),
            ("third", "stable", 403),
        ):
            document = announcement(product=product, channel=channel)
            answer = publish(shared_feed.url, shared_feed.publisher, document)
            assert answer.status == status, (product, channel)

    def test_reading_token_may_not_publish(self, shared_feed):
        """Neither an announcement nor metadata."""
        token = make_token(shared_feed.state, "read", "operate")
        tuf = {"timestamp": pack(timestamp())}
        for document in (announcement(), {"schema": 1, "tuf": tuf}):
            assert publish(shared_feed.url, token, document).status == 403

    def test_revoked_token_is_worthless_at_once(self, shared_feed):
        """No restart needed."""
        import subprocess
        import sys

        token = make_token(shared_feed.state, "publish:acme/stable")
        assert publish(shared_feed.url, token, announcement()).status == 201
        command = [sys.executable, "-m", "updaterd", "token"]
        listed = subprocess.run(
            [*command, "list", "--json", "--state", shared_feed.state],
            check=True,
            capture_output=True,
        )
        newest = json.loads(listed.stdout)["tokens"][-1]["id"]
        subprocess.run(
            [*command, "revoke", "--state", shared_feed.state, newest],
            check=True,
            capture_output=True,
        )
        assert publish(shared_feed.url, token, announcement()).status == 401

    async def test_metadata_reaches_every_filter(self, shared_feed):
        """Freshly signed metadata is for all products."""
        document = {"schema": 1, "tuf": {"timestamp": pack(timestamp(50))}}
        async with Reader(shared_feed.url, "?product=none&channel=none") as reader:
            await reader.next()
            answer = publish(shared_feed.url, shared_feed.publisher, document)
            event = await reader.next()
        assert (event.id, event.name) == (answer.json["id"], "metadata")
        assert event.json == document
        stale = {"schema": 1, "tuf": {"timestamp": pack(timestamp(49))}}
        answer = publish(shared_feed.url, shared_feed.publisher, stale)
        assert (answer.status, answer.json["code"]) == (409, "metadata_older")

    async def test_too_fast_is_told_to_slow_down(self, tmp_path, world):
        """A publisher that went wild cannot flood the fleet."""
        world = dataclasses.replace(world, clock=lambda: 0.0)
        server = FeedServer(Options(state=tmp_path, port=0, publish_rate=2), world)
        running = asyncio.create_task(server.run())
        await asyncio.wait_for(server.started.wait(), DEADLINE_S)
        _, secret = Tokens(tmp_path).create(
            ("publish:acme/stable",), name="", now=lambda: 0.0
        )

        def post():
            bodies = [announcement(seq=n) for n in range(12)]
            return [publish(server.url, secret, body).status for body in bodies]

        assert await asyncio.to_thread(post) == [201] * 10 + [429] * 2
        server.stop()
        server.stop()
        await asyncio.wait_for(running, DEADLINE_S)
