# SPDX-License-Identifier: Apache-2.0
"""To other hosts: for what a hash was signed of, where the owner allows it."""

import hashlib

import pytest
from fakes import origin as origins
from fakes.origin import Origin

from updaterd.errors import TransientError, UpdaterError
from updaterd.net import Fetcher
from updaterd.net.blobs import fetch_blob
from updaterd.net.redirects import allows, next_hop

DATA = hashlib.shake_256(b"a bundle").digest(50_000)
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path):
    """Return an object store: another origin, where the bundle is."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / HASH).write_bytes(DATA)
    with Origin(folder) as made:
        yield made


@pytest.fixture
def page(tmp_path, store):
    """Return a release page, which sends for the bundle to the store."""
    (tmp_path / "page").mkdir()
    with Origin(tmp_path / "page") as made:
        made.misbehave("", origins.redirect(f"{store.url}/{HASH}?signature=secret"))
        yield made


@pytest.fixture
def fetch(tmp_path, page):
    def bundle(*hosts, **more):
        with Fetcher(redirect_hosts=hosts, origin=page.url, **more) as fetcher:
            return fetch_blob(
                fetcher, [page.url], HASH, len(DATA), into=tmp_path / "cache"
            )

    return bundle


def host_of(origin):
    return f"127.0.0.1:{origin.server_port}"


def test_a_bundle_comes_from_a_host_that_the_owner_allows(fetch, store):
    assert fetch(host_of(store)).read_bytes() == DATA


def test_no_host_is_allowed_by_default_and_the_refusal_says_what_to_set(fetch, store):
    with pytest.raises(TransientError) as refused:
        fetch("objects.example.com")
    assert refused.value.code == "cross_origin_redirect"
    assert 'redirect_hosts = ["127.0.0.1"]' in refused.value.do
    assert "secret" not in str(refused.value), "an address may be signed for its bearer"
    assert not store.requests


def test_credentials_stay_with_whom_they_are_for(fetch, page, store):
    fetch(host_of(store), headers={"Authorization": "Bearer x"})
    assert page.headers_seen[0]["Authorization"] == "Bearer x"
    assert "Authorization" not in store.headers_seen[0]


def test_credentials_for_nobody_in_particular_are_not_taken_along(page, store):
    with (
        Fetcher(
            headers={"Authorization": "Bearer x"}, redirect_hosts=[host_of(store)]
        ) as fetcher,
        fetcher.stream(f"{page.url}/{HASH}") as stream,
    ):
        assert b"".join(stream.chunks) == DATA
    assert "Authorization" not in store.headers_seen[0]


def test_other_bytes_from_there_are_refused(fetch, store):
    (store.root / HASH).write_bytes(b"x" * len(DATA))
    with pytest.raises(UpdaterError) as refused:
        fetch(host_of(store))
    assert refused.value.code == "hash_mismatch"


def test_metadata_does_not_follow_whatever_is_allowed(page, store):
    with (
        Fetcher(redirect_hosts=[host_of(store)]) as fetcher,
        pytest.raises(TransientError) as refused,
    ):
        fetcher.get(f"{page.url}/metadata/timestamp.json", limit=10**6)
    assert refused.value.code == "cross_origin_redirect"
    assert not store.requests


def test_hops_are_bounded(fetch, page, store):
    store.misbehave("", origins.redirect(f"{page.url}/again"))
    with pytest.raises(TransientError) as refused:
        fetch(host_of(store), host_of(page))
    assert refused.value.code == "redirects"
    assert len(store.requests) + len(page.requests) <= 4


def test_a_broken_download_goes_on_through_a_new_redirect(fetch, page, store):
    """The first address may be signed for a minute: the second is asked for anew."""
    store.misbehave("", _once(store))
    assert fetch(host_of(store)).read_bytes() == DATA
    assert len(page.requests) == len(store.requests) == 2


def _once(store):
    cut = origins.cut(20_000)

    def answer(handler):
        store.rules.clear()
        cut(handler)

    return answer


@pytest.mark.parametrize(
    "location",
    ["http://objects.example.com/x", "ftp://objects.example.com/x",
     "https://user:secret@objects.example.com/x"],
)  # fmt: skip
def test_an_allowed_host_is_asked_by_https_without_credentials_only(location):
    hosts = ("objects.example.com", "objects.example.com:80", "objects.example.com:0")
    with pytest.raises(TransientError, match="redirects to") as refused:
        next_hop("https://example.com/x", location, hosts)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("hosts", "url", "expected"),
    [
        (["a.example"], "https://a.example/x", True),
        (["A.example"], "https://a.EXAMPLE/x", True),
        (["a.example"], "https://a.example:8443/x", False),
        (["a.example:8443"], "https://a.example:8443/x", True),
        (["a.example"], "https://b.a.example/x", False),
        (["*.a.example"], "https://b.a.example/x", True),
        (["*.a.example"], "https://a.example/x", False),
        (["*.a.example"], "https://evila.example/x", False),
        (["a.example"], "https://a.example.evil/x", False),
        ([], "https://a.example/x", False),
    ],
)
def test_a_host_is_allowed_by_its_whole_name(hosts, url, expected):
    assert allows(hosts, url) is expected
