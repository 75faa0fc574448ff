# SPDX-License-Identifier: Apache-2.0
"""Names, texts, units: small rules that other rules rest on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.channel import ChannelPointer, Offer, Rollout, parse_custom
from updaterd.core.json_fields import Fields
from updaterd.core.names import check_name, check_version
from updaterd.core.text import printable, public_url
from updaterd.core.units import (
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration,
    parse_rate,
)
from updaterd.errors import MalformedError


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a.b", "a/b", "A", "-a", "a-", "a" * 65, "é", "a\n", "\u0430"],
)
def test_name_that_could_be_a_path_or_a_role_boundary_is_refused(name):
    with pytest.raises(MalformedError):
        check_name("product", name)


@pytest.mark.parametrize("version", ["", ".", "..", ".1", "a/b", "-1", "1\n", "1 2"])
def test_version_that_could_be_a_path_or_an_option_is_refused(version):
    with pytest.raises(MalformedError):
        check_version(version)


@pytest.mark.parametrize(
    "version", ["1", "1.2.3", "2026.11", "v1", "1.0~rc1+b.5", "A_1"]
)
def test_labels_in_use_are_fine(version):
    assert version == check_version(version)


@given(st.text())
def test_nothing_shown_controls_a_terminal(text):
    assert printable(text).replace("…", "").isprintable()


def test_escape_sequences_and_bidirectional_overrides_are_shown_as_text():
    assert r"\x1b[2J\u202eabc" == printable("\x1b[2J\u202eabc")


def test_address_that_everybody_may_see_holds_no_secret():
    shown = public_url("https://me:pw@feed.example:8443/v1/events?token=t#x")

    assert "https://feed.example:8443/v1/events" == shown
    assert "(not an address)" == public_url("http://[broken")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1h 30min", 5400), ("7d", 604800), ("0.5h", 1800)],
)
def test_durations(text, seconds):
    assert seconds == parse_duration(text)


@pytest.mark.parametrize("text", ["", " ", "d", "7x", "-1d", "1d,", "1e9d", "nan"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(MalformedError):
        parse_duration(text)


def test_sizes_and_rates():
    assert 500 * 2**20 == parse_bytes("500MiB")
    assert 5 * 10**6 == parse_bytes("5 MB")
    assert 5 * 2**20 == parse_rate("5MiB/s")
    for text in ("5MiB", "5/s", "5MiB/h", "fast/s"):
        with pytest.raises(MalformedError):
            parse_rate(text)


@given(st.floats(0, 1e18))
def test_every_amount_can_be_shown(amount):
    assert format_bytes(amount)
    assert format_duration(amount)


@pytest.mark.parametrize("order", [[1, 2], [2, 2], [3, 1, 2]])
def test_pointer_that_is_not_newest_first_is_refused(order):
    """The planner takes the first offer that reaches a machine for the newest."""
    offers = tuple(
        Offer(version=str(n), seq=n, rollout=Rollout(salt="s")) for n in order
    )
    pointer = ChannelPointer(
        product="acme", channel="stable", paused=False, floor_seq=0, releases=offers
    )

    with pytest.raises(MalformedError, match="newest first"):
        parse_custom(
            Fields(pointer.as_custom(), "pointer"), product="acme", channel="stable"
        )
