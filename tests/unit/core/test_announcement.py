# SPDX-License-Identifier: Apache-2.0
"""One wire format: what a publisher encodes, a feed takes and a machine reads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import announcement, events
from updaterd.core.announcement import (
    MAX_SNAPSHOT,
    MAX_SPREAD_S,
    MAX_TIMESTAMP,
    URGENCIES,
    Announcement,
    pack,
)
from updaterd.core.channel import Rollout
from updaterd.errors import MalformedError
from updaterd.trust.updater import LIMITS

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True)


@st.composite
def announcements(draw):
    has_metadata = draw(st.booleans())
    timestamp = draw(st.binary(min_size=1, max_size=300)) if has_metadata else None
    snapshot = draw(st.none() | st.binary(min_size=1, max_size=300))
    packed = {
        "timestamp": pack(timestamp) if timestamp else None,
        "snapshot": pack(snapshot) if timestamp and snapshot else None,
    }
    if has_metadata and draw(st.booleans()):
        return Announcement(**packed)
    return Announcement(
        product=draw(NAMES),
        channel=draw(NAMES),
        version=f"{draw(st.integers(0, 99))}.1",
        seq=draw(st.integers(0, 2**40)),
        urgency=draw(st.sampled_from(URGENCIES)),
        spread_s=draw(st.integers(0, MAX_SPREAD_S)),
        **packed,
    )


@given(announcements())
def test_what_is_encoded_is_parsed_as_it_was(announced):
    assert announcement.parse(announced.encode()) == announced


@given(announcements())
def test_machines_read_what_a_feed_takes_whole(announced):
    """Nothing is refused, clamped or dropped on the way."""
    kind = announcement.UPDATE if announced.product else announcement.METADATA
    hint = events.parse(kind, announced.encode().decode())

    for name in ("timestamp", "snapshot"):
        packed = getattr(announced, name)
        raw = getattr(hint.pushed, name) if hint.pushed else None
        assert raw == (announcement.unpack(packed, name) if packed else None)
    if announced.product:
        for name in ("product", "channel", "version", "seq", "urgency", "spread_s"):
            assert getattr(hint, name) == getattr(announced, name)


@pytest.mark.parametrize(
    ("role", "limit"), [("timestamp", MAX_TIMESTAMP), ("snapshot", MAX_SNAPSHOT)]
)
def test_files_at_their_limit_pass_and_larger_ones_do_not(role, limit):
    """However badly they pack."""
    noise = bytes(number * number % 251 for number in range(limit + 1))

    assert announcement.unpack(pack(noise[:-1]), role) == noise[:-1]
    with pytest.raises(MalformedError, match=f"more than {limit} bytes"):
        announcement.unpack(pack(noise), role)


def test_a_feed_takes_no_file_that_the_tuf_client_refuses():
    assert LIMITS.timestamp_max_length == MAX_TIMESTAMP
    assert LIMITS.snapshot_max_length == MAX_SNAPSHOT


def test_longest_rollout_can_be_announced():
    rollout = Rollout(window_s=MAX_SPREAD_S)
    body = Announcement(
        product="acme", channel="stable", version="1", spread_s=rollout.window_s
    ).encode()

    assert announcement.parse(body).spread_s == MAX_SPREAD_S
    with pytest.raises(MalformedError):
        announcement.parse(
            json.dumps(json.loads(body) | {"spread_s": MAX_SPREAD_S + 1}).encode()
        )
