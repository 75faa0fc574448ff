# SPDX-License-Identifier: Apache-2.0
"""A channel repeats the pace of what it offers, and keeps what those who wait get."""

from datetime import timedelta

import pytest
from fakes.channel import Channel
from fakes.repository import PLATFORM, T0

from updaterd.core.pace import Pace, Step
from updaterd.release import order, paces

pytestmark = pytest.mark.slow

AT = int(T0.timestamp())
STAGED = Pace(published_at=AT, steps=(Step(10, 0), Step(1000, 86400)))


@pytest.fixture
def channel(publisher):
    return Channel(publisher)


def offered(channel):
    return [(offer.version, offer.pace) for offer in channel.pointer().releases]


def test_what_is_below_stays_until_the_pace_is_over(channel):
    channel.push("1.1.0", pace=STAGED)
    assert offered(channel) == [("1.1.0", STAGED), ("1.0.0", None)]
    channel.publisher.now = T0 + timedelta(days=2)
    channel.rollout(1000)
    assert offered(channel) == [("1.1.0", None)]


def test_a_release_every_hour_fits_into_the_channel(channel):
    """The newest and the base do for machines that wait."""
    for hour in range(1, 20):
        channel.publisher.now = T0 + timedelta(minutes=hour)
        channel.push(f"1.{hour}", pace=STAGED)
    versions = [version for version, _ in offered(channel)]
    assert (16, "1.19", "1.0.0") == (len(versions), versions[0], versions[-1])


def test_critical_lifts_no_pace_that_is_signed(channel):
    """That word is the online key's, where the release exists already."""
    channel.add("1.1.0", pace=STAGED)
    steered = channel.put("1.1.0", urgency="critical")
    assert STAGED == steered.pointer.releases[0].pace
    assert "keeps its pace" in steered.notes[0]


def test_who_promotes_a_release_whose_pace_is_over_is_told(channel):
    channel.add("1.1.0", pace=STAGED)
    channel.publisher.now = T0 + timedelta(days=2)
    assert "has been over since" in channel.put("1.1.0").notes[0]
    assert "has been over since" not in "".join(channel.put("1.1.0").notes)


def test_withdrawing_a_paced_release_leaves_what_was_below(channel):
    channel.push("1.1.0", pace=STAGED)
    channel.yank("1.1.0")
    assert channel.says() == [("1.0.0", 1000, [PLATFORM])]


@pytest.mark.parametrize(
    "text",
    [
        "steps = [[10, '0s']]",
        "steps = [['10', '0s'], [1000, '1d']]",
        "steps = [[10, 'soon'], [1000, '1d']]",
        "steps = [[1000, '91d']]",
        "steps = [[1000, '1d']]\nfirst = ['Not a tag']",
        "steps = [[1000, '1d']]\nfist = ['staff']",
        "steps = 3",
        "strict = true",
        "steps = [",
    ],
)
def test_a_pace_that_makes_no_sense_is_refused(tmp_path, text):
    path = tmp_path / "pace.toml"
    path.write_text(text)
    with pytest.raises(order.BrokenError) as caught:
        paces.find(str(path), {})
    assert "bad_pace" == caught.value.code


def test_paces_are_found_by_name_then_by_file(tmp_path):
    path = tmp_path / "pace.toml"
    path.write_text(
        "steps = [[5, '0s'], [1000, '3d']]\nfirst = ['staff']\nstrict = true"
    )
    profile = paces.find(str(path), {})
    assert (True, ("staff",)) == (profile.strict, profile.first)
    assert Step(1000, 3 * 86400) == profile.steps[-1]
    own = paces.read_all({"careful": {"steps": [[1000, "1h"]]}})
    assert Step(1000, 3600) == paces.find("careful", own).steps[0]
    assert paces.find("at-once", own).starting(AT) is None
    with pytest.raises(ValueError, match="built in"):
        paces.read_all({"staged": {"steps": [[1000, "1h"]]}})
