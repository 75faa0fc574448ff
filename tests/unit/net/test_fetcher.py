# SPDX-License-Identifier: Apache-2.0
"""Fetching: one rate for everything, and answers that are cut are continued."""

import random

import pytest
from fakes import origin as origins
from fakes.origin import Origin

from updaterd.errors import TransientError
from updaterd.net import Fetcher

DATA = random.Random(1).randbytes(900_000)
RATE = 100_000


class Clock:
    """Time passes only while somebody waits."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def pause(self, seconds):
        self.now += seconds


@pytest.fixture
def origin(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    with Origin(tmp_path) as server:
        yield server


@pytest.mark.parametrize("deadline_s", [5.0, 0.5])
def test_rate_holds_for_metadata_and_manifests_too(origin, deadline_s):
    """And no deadline counts the waits that it makes."""
    clock = Clock()
    with Fetcher(max_rate=RATE, clock=clock, pause=clock.pause) as fetcher:
        got = fetcher.get(f"{origin.url}/file", limit=len(DATA), deadline_s=deadline_s)
    assert got == DATA
    assert clock.now == pytest.approx(len(DATA) / RATE - 1)


def test_rate_holds_over_one_fetch_after_another(origin):
    """Bodies of every kind share it: there is one line."""
    clock = Clock()
    with Fetcher(max_rate=RATE, clock=clock, pause=clock.pause) as fetcher:
        fetcher.get(f"{origin.url}/file", limit=len(DATA))
        with fetcher.stream(f"{origin.url}/file") as answer:
            assert b"".join(answer.chunks) == DATA
    assert clock.now == pytest.approx(2 * len(DATA) / RATE - 1)


@pytest.mark.parametrize("politely", [False, True])
def test_manifest_through_a_proxy_that_cuts_each_answer(origin, politely):
    """A long one would never arrive otherwise: nothing of it is kept between runs."""
    origin.misbehave("file", origins.cut_each(200_000, politely=politely))
    with Fetcher() as fetcher:
        got = fetcher.get(f"{origin.url}/file", limit=len(DATA), length=len(DATA))
    assert got == DATA
    assert origin.sent <= len(DATA)


def test_range_through_a_proxy_that_cuts_each_answer(origin):
    """As repair asks for it: a part of the full bundle."""
    origin.misbehave("file", origins.cut_each(100_000))
    with (
        Fetcher() as fetcher,
        fetcher.stream(f"{origin.url}/file", start=50_000, end=650_000) as answer,
    ):
        assert b"".join(answer.chunks) == DATA[50_000:650_000]


def test_edition_that_changes_between_two_answers_is_not_joined(origin):
    """If-Range: the server sends the other edition whole, which is not appended."""
    origin.misbehave("file", origins.cut(200_000))

    def change(handler):
        origins.body(DATA[::-1])(handler)

    with Fetcher() as fetcher, fetcher.stream(f"{origin.url}/file") as answer:
        assert answer.headers["etag"]
        got = [next(answer.chunks)]
        origin.misbehave("file", change)
        with pytest.raises(TransientError):
            got.extend(answer.chunks)
    assert DATA.startswith(b"".join(got))


def test_shorter_file_is_the_callers_to_judge(origin):
    """Another manifest in this one's place ends in good order: its hash tells."""
    origin.misbehave("file", origins.body(b"another file"))
    with Fetcher() as fetcher:
        got = fetcher.get(f"{origin.url}/file", limit=len(DATA), length=len(DATA))
    assert b"another file" == got
