# SPDX-License-Identifier: Apache-2.0
"""Blobs: resumed, believed by hash only, from whichever server has them right."""

import hashlib
import random

import pytest
from fakes import origin as origins
from fakes.origin import Origin

from updaterd.errors import RejectedError, TransientError
from updaterd.net import Fetcher, NotFoundError
from updaterd.net.blobs import fetch_blob

DATA = random.Random(1).randbytes(300_000)
HASH = hashlib.sha256(DATA).hexdigest()
PATH = f"blobs/sha256/{HASH[:2]}/{HASH}"


def serve(folder, data=DATA):
    path = folder / PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return Origin(folder)


@pytest.fixture
def origin(tmp_path):
    with serve(tmp_path / "a") as server:
        yield server


@pytest.fixture
def fetcher():
    with Fetcher(deadline_s=2.0, window_s=1.0) as made:
        yield made


@pytest.fixture
def fetch(fetcher, tmp_path):
    def run(*bases, **more):
        into = tmp_path / "cache"
        return fetch_blob(fetcher, bases, HASH, len(DATA), into=into, **more)

    return run


def test_a_blob_comes_whole_and_is_not_asked_for_again(fetch, origin):
    """One request, the right bytes, private; the second time none."""
    path = fetch(origin.url)
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o600
    assert fetch(origin.url) == path
    assert len(origin.requests) == 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("at", [1, 1000, 16_000])
def test_a_broken_download_goes_on_where_it_stopped(fetch, origin, at):
    """Only the missing bytes are sent the second time, asked for by Range."""
    origin.misbehave(HASH, origins.cut(at))
    with pytest.raises(TransientError):
        fetch(origin.url)
    origin.behave()
    seen = []
    path = fetch(origin.url, progress=lambda here, _: seen.append(here))
    assert path.read_bytes() == DATA
    assert origin.headers_seen[0]["Range"] == f"bytes={at}-"
    assert origin.headers_seen[0]["If-Range"] == f'"{HASH}"'
    assert origin.sent == len(DATA) - at
    assert seen[-1] == len(DATA)


@pytest.mark.parametrize("politely", [False, True])
def test_a_proxy_that_cuts_each_answer_costs_requests_not_runs(fetch, origin, politely):
    """Each answer brings a part; all of them come in one run, no byte twice."""
    origin.misbehave(HASH, origins.cut_each(70_000, politely=politely))
    assert fetch(origin.url).read_bytes() == DATA
    starts = [seen.get("Range") for seen in origin.headers_seen]
    assert starts == [
        None,
        *(f"bytes={at}-" for at in range(70_000, len(DATA), 70_000)),
    ]


def test_a_file_that_is_shorter_on_the_server_is_no_cut_answer(fetch, origin):
    """It can never become right there: another server is asked, or a verdict given."""
    origin.misbehave(HASH, origins.body(DATA[:200_000]))
    with pytest.raises(RejectedError) as caught:
        fetch(origin.url)
    assert caught.value.code == "hash_mismatch"


def test_answers_that_bring_nothing_end_the_run(fetch, origin):
    """What came stays for the next one."""
    origin.misbehave(HASH, origins.cut_each(100))
    with pytest.raises(TransientError):
        fetch(origin.url)
    assert len(origin.requests) == 1


def test_a_part_of_something_else_is_thrown_away(fetch, origin, tmp_path):
    """Resuming on wrong bytes fails the hash once; from scratch it is right."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / f"{HASH}.part").write_bytes(b"x" * 1000)
    assert fetch(origin.url).read_bytes() == DATA
    assert len(origin.requests) == 2


@pytest.mark.parametrize("size", [len(DATA), len(DATA) + 1])
def test_a_part_of_full_length_is_judged_by_its_hash(fetch, origin, tmp_path, size):
    """Whatever lies there, the right bytes come out."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / f"{HASH}.part").write_bytes(b"x" * size)
    assert fetch(origin.url).read_bytes() == DATA


def test_a_server_that_ignores_ranges_is_taken_from_the_start(fetch, origin):
    """200 instead of 206: what came before is replaced, not continued."""
    origin.misbehave(HASH, origins.cut(1000))
    with pytest.raises(TransientError):
        fetch(origin.url)
    origin.behave()
    origin.misbehave(HASH, origins.body(DATA))
    assert fetch(origin.url).read_bytes() == DATA


@pytest.mark.parametrize("location", ["http://[", "http://[1.2.3.4]/x", "//["])
def test_a_mirror_that_redirects_to_no_address_is_passed_over(
    fetch, origin, tmp_path, location
):
    """It is trusted with nothing: not with the end of a run either."""
    with serve(tmp_path / "b") as bad:
        bad.misbehave(r"blobs/", origins.redirect(location))
        assert fetch(bad.url, origin.url).read_bytes() == DATA


def test_a_chunked_body_that_lacks_only_its_end_is_whole(fetch, origin):
    """All bytes came: their hash decides, and nothing is asked for again."""
    origin.misbehave(r"blobs/", endless_chunks)
    assert fetch(origin.url).read_bytes() == DATA
    assert len(origin.requests) == 1


def endless_chunks(handler):
    """Send the file in one chunk, and hang up before the last one."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(DATA), DATA))
    handler.close_connection = True


def test_a_mirror_with_wrong_bytes_is_passed_over(fetch, origin, tmp_path):
    """The next base serves the right ones; nothing of the wrong ones stays."""
    with serve(tmp_path / "b", b"y" * len(DATA)) as bad:
        assert fetch(bad.url, origin.url).read_bytes() == DATA


def test_wrong_bytes_everywhere_are_a_verdict(fetch, origin):
    """No server has the signed bytes: this release will not do."""
    origin.misbehave(HASH, origins.body(b"z" * len(DATA)))
    with pytest.raises(RejectedError) as caught:
        fetch(origin.url)
    assert caught.value.code == "hash_mismatch"


def test_wrong_bytes_here_and_no_answer_there_is_no_verdict(fetch, origin):
    """The server that is down may have the right ones: try again later."""
    origin.misbehave(HASH, origins.body(b"z" * len(DATA)))
    with pytest.raises(TransientError) as caught:
        fetch("http://127.0.0.1:9", origin.url)
    assert caught.value.code == "unreachable"


def test_nothing_there_and_no_answer_here_is_worth_waiting_for(fetch, origin):
    """A mirror that lags must not cost the full bundle while the origin restarts."""
    origin.misbehave(HASH, origins.status(404))
    with pytest.raises(TransientError) as caught:
        fetch(origin.url, "http://127.0.0.1:9")
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("status", [403, 404])
def test_nothing_anywhere_is_told_apart(fetch, origin, status):
    """Nobody is down: the caller may go on to another bundle at once."""
    origin.misbehave(HASH, origins.status(status))
    with pytest.raises(NotFoundError):
        fetch(origin.url, origin.url)


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (origins.endless, RejectedError, "hash_mismatch"),
        (origins.drip_headers, TransientError, "timeout"),
        (origins.drip_body, TransientError, "too_slow"),
        (origins.status(503), TransientError, "http_503"),
        (
            origins.redirect("http://127.0.0.2:1/x"),
            TransientError,
            "cross_origin_redirect",
        ),
        (
            origins.body(DATA, **{"Content-Encoding": "gzip"}),
            TransientError,
            "content_encoding",
        ),
    ],
)
def test_a_misbehaving_server_is_given_up_and_named(fetch, origin, answer, kind, code):
    """Endless, dripping, failing, luring, encoding: a typed error in bounded time."""
    origin.misbehave(HASH, answer)
    with pytest.raises(kind) as caught:
        fetch(origin.url)
    assert caught.value.code == code
    assert origin.sent < 50 * len(DATA)


def test_credentials_go_to_their_origin_only(origin, tmp_path):
    """A mirror never sees the repository's Authorization."""
    with (
        serve(tmp_path / "b") as mirror,
        Fetcher(headers={"Authorization": "Bearer x"}, origin=origin.url) as fetcher,
    ):
        fetcher.get(f"{mirror.url}/{PATH}", limit=len(DATA))
        fetcher.get(f"{origin.url}/{PATH}", limit=len(DATA))
        assert "Authorization" not in mirror.headers_seen[0]
        assert origin.headers_seen[0]["Authorization"] == "Bearer x"
        assert origin.headers_seen[0]["Accept-Encoding"] == "identity"


def test_a_full_disk_is_told_and_what_came_is_kept(fetcher, origin, tmp_path):
    """ENOSPC is a matter of time and space, not of the release."""
    into = tmp_path / "cache"
    into.mkdir()
    (into / f"{HASH}.part").symlink_to("/dev/full")
    with pytest.raises(TransientError) as caught:
        fetch_blob(fetcher, [origin.url], HASH, len(DATA), into=into)
    assert caught.value.code in {"cache_unusable", "disk_full"}
    assert (into / f"{HASH}.part").is_symlink()


def test_plain_http_is_for_this_machine_only(fetcher):
    """Anything but https or loopback is refused before a packet leaves."""
    from updaterd.errors import BrokenError

    for url in ("http://192.0.2.1/x", "ftp://localhost/x", "http://", "nonsense"):
        with pytest.raises(BrokenError):
            fetcher.get(url, limit=1)
    assert fetcher.requests == 0
