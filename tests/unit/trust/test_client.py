# SPDX-License-Identifier: Apache-2.0
"""The trust layer, over real HTTP, against a repository of the production code."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes import origin as origins
from fakes.repository import PLATFORM, T0, Pushed

from updaterd.errors import BrokenError, MalformedError, RejectedError, TransientError
from updaterd.release import publish

pytestmark = pytest.mark.slow


def test_a_published_release_is_found_and_its_manifest_read(client):
    """Channel and manifest come out as they were signed, roles with their expiry."""
    view = client.refresh()
    (offer,) = view.channel("acme", "stable").releases
    manifest = view.manifest("acme", offer.version, PLATFORM)
    assert (manifest.version, manifest.seq) == ("1.0.0", 1)
    assert view.signed("acme", "1.0.0", PLATFORM).whole() == manifest.encode()
    by_name = {role.name: role for role in view.roles}
    assert by_name["timestamp"].days_left(T0) == 7
    assert by_name["acme.stable"].days_left(T0) == 90
    assert view.warnings == ()
    words = {word.role: word.place for word in view.words("acme", "stable")}
    assert words["acme.stable"] == (1, 2)


def test_nothing_new_costs_two_requests_and_less_than_a_kilobyte(client, origin):
    """A second refresh asks for the next root and the timestamp, nothing else."""
    client.refresh().channel("acme", "stable")
    origin.behave()
    client.refresh().channel("acme", "stable")
    assert origin.requests == ["/metadata/2.root.json", "/metadata/timestamp.json"]
    assert origin.sent < 1000


def test_pushed_metadata_saves_the_round_trips(client, origin, publisher):
    """With timestamp and snapshot pushed, four requests lead to the manifest."""
    client.refresh().channel("acme", "stable")
    publisher.release("1.1.0")
    origin.behave()
    view = client.refresh(pushed=publisher.pushed())
    version = view.channel("acme", "stable").releases[0].version
    assert view.manifest("acme", version, PLATFORM).version == "1.1.0"
    assert len(origin.requests) == 4
    assert not any("root" in path or "snapshot" in path for path in origin.requests)


@pytest.mark.parametrize("gap", ["refresh", "yank"])
def test_pushed_metadata_older_than_the_repository_lowers_nothing(
    client, publisher, gap
):
    """1.1.0 announced, then yanked in silence: the event brings nobody to 1.1.0."""
    client.refresh().channel("acme", "stable")
    publisher.release("1.1.0")
    announced = publisher.pushed()
    if gap == "yank":
        repository = publisher.open()
        publish.yank(publish.catalog_of(publisher.space, repository, "acme"), "1.1.0")
        repository.commit()
    else:
        publisher.refresh()
    wanted = "1.0.0" if gap == "yank" else "1.1.0"
    assert client.offered(pushed=announced) == wanted
    now = json.loads((publisher.metadata / "timestamp.json").read_bytes())["signed"]
    by_name = {role.name: role for role in client.refresh().roles}
    assert by_name["timestamp"].version == now["version"]


def test_pushed_metadata_newer_than_a_stale_edge_counts(client, origin, publisher):
    """What the event brings may raise what a cache still says."""
    client.refresh().channel("acme", "stable")
    stale = (publisher.metadata / "timestamp.json").read_bytes()
    publisher.release("1.1.0")
    origin.misbehave(r"timestamp\.json", origins.body(stale))
    assert client.offered(pushed=publisher.pushed()) == "1.1.0"


def test_pushed_metadata_without_the_repository_is_not_acted_on(
    client, origin, publisher
):
    """Nobody can say whether it is the newest: later, then."""
    client.refresh().channel("acme", "stable")
    publisher.release("1.1.0")
    origin.misbehave(r"timestamp\.json", origins.status(503))
    with pytest.raises(TransientError):
        client.offered(pushed=publisher.pushed())


@pytest.mark.parametrize("fault", ["forged", "replayed", "garbage", "other_snapshot"])
def test_pushed_metadata_that_does_not_verify_is_forgotten(client, publisher, fault):
    """Whatever an event carries, the repository's own answer is what counts."""
    old = publisher.pushed()
    client.refresh()
    publisher.release("1.1.0")
    new = publisher.pushed()
    bad = {
        "forged": Pushed(new.timestamp.replace(b'"version":', b'"version":9'), None),
        "replayed": old,
        "garbage": Pushed(b"[" * 3000, b"{"),
        "other_snapshot": Pushed(new.timestamp, old.snapshot),
    }[fault]
    assert client.offered(pushed=bad) == "1.1.0"


def test_a_new_root_is_asked_for_when_the_pushed_timestamp_names_one(
    client, origin, publisher
):
    """Pushed metadata cannot keep a machine on a root that has been replaced."""
    client.refresh()
    repository = publisher.open()
    repository.touch("root")
    repository.commit()
    origin.behave()
    view = client.refresh(pushed=publisher.pushed())
    assert "/metadata/2.root.json" in origin.requests
    assert view.roles[0].version == 2


def test_a_stale_mirror_is_reported_and_what_is_known_is_kept(
    client, origin, publisher
):
    """An older timestamp is refused; the newer one at hand goes on being used."""
    before = (publisher.metadata / "timestamp.json").read_bytes()
    publisher.release("1.1.0")
    assert client.offered() == "1.1.0"
    origin.misbehave("timestamp", lambda handler: handler.whole(before))
    view = client.refresh()
    assert [each.code for each in view.warnings] == ["stale_mirror"]
    assert view.channel("acme", "stable").releases[0].version == "1.1.0"


def test_expired_metadata_is_told_with_what_to_do(client, publisher):
    """A week without a signature: refused, explained, healed by one refresh."""
    client.refresh()
    client.now = T0 + timedelta(days=8)
    with pytest.raises(TransientError) as caught:
        client.refresh()
    assert caught.value.code == "metadata_expired"
    assert "release refresh" in caught.value.do
    publisher.now = client.now
    publisher.refresh()
    assert client.offered() == "1.0.0"


def test_a_clock_set_back_is_not_believed(client):
    """1970 on the clock: judged by the latest time known, and said."""
    late = T0 + timedelta(days=8)
    before = client.refresh()
    said = next(w for w in before.words("acme", "stable") if w.role == "timestamp")
    heard = replace(said, time=late.timestamp())
    with pytest.raises(TransientError) as caught:
        client.refresh(now=T0.replace(year=1970), heard=[heard])
    assert caught.value.code == "metadata_expired"
    view = client.refresh(now=T0 - timedelta(days=3), heard=[said])
    assert [each.code for each in view.warnings] == ["clock_suspect"]


def test_a_time_that_a_stranger_signed_is_not_believed(client):
    """Whoever may not sign timestamps says nothing about the time, however late."""
    said = client.refresh().words("acme", "stable")[2]
    stranger = replace(said, keys=frozenset({"f" * 64}), time=9e18)
    assert client.refresh(heard=[stranger]).warnings == ()


def test_a_clock_behind_the_signature_is_suspected(client, publisher):
    """The timestamp says when it was signed: a clock far before that is wrong."""
    publisher.now = T0 + timedelta(days=5)
    publisher.refresh()
    view = client.refresh(now=T0)
    assert [each.code for each in view.warnings] == ["clock_suspect"]


def test_a_demo_repository_is_refused_by_a_machine_that_is_not_playing(client):
    """Keys that lie beside the repository never reach a real machine."""
    client.demo = False
    with pytest.raises(BrokenError) as caught:
        client.refresh()
    assert caught.value.code == "demo_repository"
    assert client.origin.requests == []


@pytest.mark.parametrize("raw", [b"", b"{}", b"[" * 2000, b'{"signed":{}}'])
def test_an_unusable_bootstrap_root_needs_a_person(client, raw):
    """A damaged root file is told as such, and nothing is asked of the network."""
    client.bootstrap = raw
    with pytest.raises(BrokenError) as caught:
        client.refresh()
    assert caught.value.code == "bad_root"


def test_a_channel_that_does_not_exist_is_a_matter_of_time_or_of_names(client):
    """Not an attack, not a crash: try again, and check the configuration."""
    with pytest.raises(TransientError) as caught:
        client.refresh().channel("acme", "nightly")
    assert caught.value.code == "no_such_channel"


def test_a_release_that_is_not_signed_for_the_platform_is_refused(client):
    """The channel key cannot make a release, only choose among them."""
    with pytest.raises(RejectedError) as caught:
        client.refresh().manifest("acme", "1.0.0", "linux-aarch64")
    assert caught.value.code == "no_such_release"


def test_a_manifest_must_say_what_was_asked_for(client, publisher):
    """A validly signed manifest in another release's place is refused."""
    from fakes.repository import manifest_of

    from updaterd.release import publish

    repository = publisher.open()
    catalog = publish.catalog_of(publisher.space, repository, "acme")
    lie = manifest_of("acme", "9.9.9", 9)
    target = catalog._write(
        f"acme/releases/2.0.0/{PLATFORM}.json", lie.encode(), {"seq": 9}
    )
    with repository.edit("acme.releases") as role:
        role.targets[target.path] = target
    repository.commit()
    with pytest.raises(MalformedError) as caught:
        client.refresh().manifest("acme", "2.0.0", PLATFORM)
    assert caught.value.code == "wrong_target"


def test_the_cache_may_be_lost_at_any_time(client, publisher):
    """Without its cache the machine starts again from the root it was given."""
    import shutil

    client.refresh()
    shutil.rmtree(client.cache)
    publisher.release("1.1.0")
    assert client.offered() == "1.1.0"


def test_damage_in_the_cache_is_healed_by_the_next_refresh(client):
    """Every cached file may be garbage: it is fetched again."""
    client.refresh().channel("acme", "stable")
    for path in client.cache.rglob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"\x00garbage")
    assert client.offered() == "1.0.0"


def test_many_roots_are_walked_one_by_one(client, publisher):
    """Forty new roots later, the first root still leads to the newest."""
    for _ in range(40):
        repository = publisher.open()
        repository.touch("root")
        repository.commit()
    assert client.refresh().roles[0].version == 41


def test_two_refreshes_at_once_on_one_cache_both_succeed(client):
    """The lock makes python-tuf's single-instance rule hold between workers."""
    from concurrent.futures import ThreadPoolExecutor

    from fakes.repository import Client

    others = [Client(client.cache, client.bootstrap, client.origin) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda other: other.offered(), others))
    for other in others:
        other.close()
    assert found == ["1.0.0"] * 4


def test_the_roles_in_the_cache_can_be_read_without_python_tuf(client):
    """`status` lists versions and expiries although it never imports tuf."""
    from updaterd.trust.roles import read_roles

    assert read_roles(client.cache) == ()
    client.refresh().channel("acme", "stable")
    names = [role.name for role in read_roles(client.cache)]
    assert names == ["root", "timestamp", "snapshot", "targets", "acme.stable"]
