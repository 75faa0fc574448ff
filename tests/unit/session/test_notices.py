# SPDX-License-Identifier: Apache-2.0
"""One notice when something is ready, never twice, gone when it is done."""

from datetime import datetime, timedelta

import pytest

from updaterd.session import notices
from updaterd.session.notices import Notices

NOW = 1_800_000_000.0


def state(**changes):
    return {
        "name": "acme",
        "state": "ready",
        "code": "waits_for_request",
        "reason": "1.1.0 is ready: it is activated when the application asks",
        "installed": "1.0.0",
        "target": "1.1.0",
        "ready": "1.1.0",
        "deadline": int(NOW + 86400),
        **changes,
    }


def test_what_is_ready_is_told_once_also_by_a_later_process():
    told = Notices()
    told.learn(state())
    (notice,) = told.new(NOW)
    assert notice.title == "Acme 1.1.0 is ready"
    assert [key for key, _ in notice.actions] == ["apply", "tonight"]

    told.learn(state(reason="1.1.0 is ready: in 3h at the latest"))
    assert told.new(NOW) == []
    again = Notices(told.shown)
    again.learn(state())
    assert again.new(NOW) == []


def test_who_asks_what_is_new_is_shown_it_each_time_and_may_choose_again():
    told = Notices()
    told.learn(state(), "Letters open faster.")
    (notice,) = told.new(NOW)
    assert [key for key, _ in notice.actions] == ["apply", "tonight", "news"]
    for _ in range(2):
        news = told.news("acme")
        assert (news.title, news.body) == (
            "What's new in Acme 1.1.0",
            "Letters open faster.",
        )
        assert [key for key, _ in news.actions] == ["apply", "tonight"]
    assert not told.is_over(news.key)
    told.learn(state(state="current", ready=None))
    assert told.is_over(news.key)
    assert told.news("acme") is None


def test_a_newer_release_is_told_and_the_older_notice_is_over():
    told = Notices()
    told.learn(state())
    (old,) = told.new(NOW)
    told.learn(state(ready="1.2.0", target="1.2.0"))
    assert told.is_over(old.key)
    assert [notice.title for notice in told.new(NOW)] == ["Acme 1.2.0 is ready"]


@pytest.mark.parametrize("after", ["activating", "current", "rolled_back"])
def test_when_it_is_done_the_notice_is_over(after):
    told = Notices()
    told.learn(state())
    (notice,) = told.new(NOW)
    assert not told.is_over(notice.key)
    told.learn(state(state=after, ready=None))
    assert told.is_over(notice.key)


@pytest.mark.parametrize("code", ["postponed", "inhibited"])
def test_who_asked_for_quiet_is_left_alone_until_the_deadline_is_near(code):
    told = Notices()
    told.learn(state(code=code))
    assert told.new(NOW) == []
    at = told.next_at(NOW)
    assert at == NOW + 86400 - notices.BEFORE_S

    (notice,) = told.new(at)
    assert notice.title == "Acme 1.1.0 is activated in 1h"
    assert told.new(at) == []


def test_after_a_roll_back_a_person_is_told_what_runs():
    told = Notices()
    told.learn(
        state(state="rolled_back", ready=None, reason="blocked here (unhealthy)")
    )
    (notice,) = told.new(NOW)
    assert notice.title == "Acme 1.1.0 did not work here"
    assert notice.body.startswith("1.0.0 runs again.")
    assert told.new(NOW) == []


@pytest.mark.parametrize("code", ["current", "waiting", "fetching"])
def test_what_needs_nobody_is_not_told(code):
    told = Notices()
    told.learn(state(state=code, ready=None))
    assert told.new(NOW) == []


@pytest.mark.parametrize(("hour", "days"), [(8, 0), (21, 0), (22, 1), (23, 1)])
def test_tonight_is_the_next_evening(hour, days):
    process = pytest.importorskip("updaterd.session.process")
    now = datetime(2026, 11, 29, hour, 0, 0).astimezone()
    evening = datetime.fromtimestamp(process.tonight(now)).astimezone()
    assert (evening.hour, evening.date() - now.date()) == (22, timedelta(days=days))


@pytest.mark.parametrize(
    "said",
    [
        None, [], {}, {"name": "acme"}, state(name="other"), state(reason=None),
        state(ready=7), state(deadline="soon"), state(deadline=float("inf")),
        state(deadline=10**400), state(deadline=-(10**400)),
    ],
)  # fmt: skip
def test_a_daemon_that_speaks_nonsense_or_of_anothers_product_is_not_heard(said):
    assert notices.is_about(state(), "acme")
    assert not notices.is_about(said, "acme")
