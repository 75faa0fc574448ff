# SPDX-License-Identifier: Apache-2.0
import base64
import contextlib
import json
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.announcement import MAX_SNAPSHOT, MAX_SPREAD_S, MAX_TIMESTAMP
from updaterd.core.events import (
    Hello,
    MetadataHint,
    Other,
    PushedMetadata,
    Resync,
    UpdateHint,
    parse,
)
from updaterd.errors import MalformedError

OWN = {
    "schema": 1,
    "product": "acme",
    "channel": "stable",
    "version": "1.2.0",
    "seq": 7,
    "urgency": "normal",
    "spread_s": 60,
}


def pack(raw):
    return base64.b64encode(zlib.compress(raw)).decode()


def update(**changes):
    return parse("update_available", json.dumps(OWN | changes))


def test_our_own_announcement():
    assert update() == UpdateHint(
        product="acme", channel="stable", version="1.2.0", seq=7, spread_s=60
    )


@pytest.mark.parametrize("version", [5, "6", -1, "v5.0 (beta)"])
def test_the_simplest_feeds_mean_look_now(version):
    """No product named: every product. The patch_url is not even read."""
    data = {"version": version, "patch_url": "http://evil/"}
    hint = parse("update_available", json.dumps(data))
    assert hint == UpdateHint(version=str(version))


def test_nothing_in_a_hint_is_an_address():
    hint = update(patch_url="http://evil/", url="x", sha256="y")
    assert not [f for f in hint.__slots__ if "url" in f or "sha" in f]


@pytest.mark.parametrize(
    "changes",
    [
        {"product": None},
        {"channel": None},
        {"product": "../etc"},
        {"product": "Acme"},
        {"product": 5},
        {"channel": "a.b"},
        {"seq": -1},
        {"seq": 1.5},
        {"seq": "7"},
        {"seq": True},
        {"schema": 0},
        {"schema": "1"},
        {"version": ["1"]},
        {"urgency": 5},
        {"spread_s": -1},
        {"tuf": []},
        {"tuf": {"timestamp": 5}},
    ],
)
def test_announcements_that_are_not(changes):
    with pytest.raises(MalformedError):
        update(**changes)


def test_a_newer_schema_is_told_apart():
    with pytest.raises(MalformedError) as caught:
        update(schema=2)
    assert caught.value.code == "newer_schema"


@pytest.mark.parametrize(
    "data", ["", "null", "[]", "5", "{", '{"version":NaN}', "{}", '{"patch_url":"x"}']
)
def test_data_that_is_no_announcement(data):
    with pytest.raises(MalformedError):
        parse("update_available", data)


def test_unknown_urgency_is_normal():
    assert update(urgency="apocalyptic").urgency == "normal"
    assert update(urgency="critical").urgency == "critical"


def test_a_spread_is_clamped():
    """A feed cannot hold a fleet back for years."""
    assert update(spread_s=10**9).spread_s == MAX_SPREAD_S


def test_pushed_metadata_is_unpacked():
    tuf = {"timestamp": pack(b"t"), "snapshot": pack(b"s")}
    assert update(tuf=tuf).pushed == PushedMetadata(timestamp=b"t", snapshot=b"s")
    hint = parse("metadata", json.dumps({"schema": 1, "tuf": tuf}))
    assert hint == MetadataHint(pushed=PushedMetadata(timestamp=b"t", snapshot=b"s"))


def test_metadata_without_files_still_means_look():
    assert parse("metadata", "{}") == MetadataHint(pushed=None)
    assert update(tuf={}).pushed is None


@pytest.mark.parametrize(
    ("name", "limit"), [("timestamp", MAX_TIMESTAMP), ("snapshot", MAX_SNAPSHOT)]
)
def test_a_bomb_is_not_unpacked(name, limit):
    """However well it packs: not one byte beyond the limit is made."""
    assert update(tuf={name: pack(b"0" * limit)}).pushed is not None
    with pytest.raises(MalformedError) as caught:
        update(tuf={name: pack(b"0" * 100 * limit)})
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "packed",
    [
        "!",
        "AAAA",
        "",
        pack(b"x" * 99)[:-8],
        pack(b"x") + "AAAA",
        base64.b64encode(zlib.compress(b"x") + b"tail").decode(),
    ],
)
def test_broken_pushed_metadata(packed):
    with pytest.raises(MalformedError):
        update(tuf={"timestamp": packed})


@pytest.mark.parametrize("data", ["", "x", '{"reason": 5}', '{"reason": "trimmed"}'])
def test_a_resync_counts_however_it_is_worded(data):
    assert isinstance(parse("resync", data), Resync)


def test_hello():
    assert parse("hello", '{"heartbeat_s": 15}') == Hello(heartbeat_s=15)
    assert parse("hello", "what?") == Hello(heartbeat_s=None)


def test_unknown_types_are_for_newer_machines():
    assert parse("message", "not json") == Other(event="message")


@pytest.mark.slow
@given(st.sampled_from(["update_available", "metadata", "resync", "hello"]), st.text())
def test_no_text_is_trouble(event, data):
    """Only one error can come out, whatever is said."""
    with contextlib.suppress(MalformedError):
        parse(event, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*OWN, "tuf", "timestamp"]), inner)
    ),
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from([*OWN, "tuf"]), JSON))
def test_no_json_is_trouble(members):
    with contextlib.suppress(MalformedError):
        parse("update_available", json.dumps(members))


@pytest.mark.parametrize(
    "bomb",
    [
        '{"product":"a","x":[' + ",".join(["[]"] * 300_000) + "]}",
        '{"product":"a","x":[' + ",".join(["{}"] * 300_000) + "]}",
        '{"product":"a","x":' + "[" * 10**6,
        '{"product":"a","x":[' + "1," * 500_000 + "1]}",
        '{"product":"a","x":[' + '"",' * 300_000 + '""]}',
        '{"product":"a",' + ",".join(f'"{n}":0' for n in range(100_000)) + "}",
        "[" * 2**20,
        '{"product":"a"' + "," * 2**19,
    ],
    ids=["lists", "objects", "deep", "numbers", "texts", "names", "open", "commas"],
)
def test_json_bomb_is_refused_before_it_is_built(bomb):
    """A megabyte of text is never thirty of objects: the daemon stays for months."""
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError):
            parse("update_available", bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_brackets_and_commas_within_a_text_are_no_values():
    """Release notes of a foreign feed may be long."""
    notes = "a, [b], {c} and \\" + chr(34) + "d" + "\\" + chr(34) + ". " * 10
    data = json.dumps({"version": 5, "notes": notes * 5000})
    assert parse("update_available", data).version == "5"
