# SPDX-License-Identifier: Apache-2.0
"""A rollout goes on when it is likely to be good, and halts when it is likely bad."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import evidence, watching
from updaterd.core.channel import ChannelPointer, Offer, Rollout, parse_custom
from updaterd.core.decision import Facts
from updaterd.core.json_fields import Fields
from updaterd.core.plan import Limits, Plan, Step, described
from updaterd.core.planner import decide
from updaterd.core.watching import Action, Evidence, judge
from updaterd.errors import MalformedError

NOW = 1_800_000_000
STEPS = (
    Step(permille=10, dwell_s=3600, min_reports=100),
    Step(permille=250, dwell_s=3600, min_reports=500),
    Step(permille=1000, dwell_s=3600, min_reports=1000),
)
PLAN = Plan(version="2.0", steps=STEPS, halt=Limits(), since=NOW)
OVER = NOW + 3600

machines = st.integers(0, 5000)
seen = st.builds(
    Evidence,
    well=machines,
    failed=machines,
    other=machines,
    reached=machines,
    base_version=st.just("1.0"),
    base_well=machines,
    base_failed=machines,
)
plans = st.builds(
    Plan,
    version=st.just("2.0"),
    steps=st.just(STEPS),
    halt=st.builds(
        Limits,
        failed_permille=st.integers(0, 1000),
        silent_permille=st.integers(0, 1000),
        confidence=st.integers(1, 999),
    ),
    step=st.integers(0, 2),
    since=st.just(NOW),
)
times = st.integers(NOW - 7200, NOW + 7200)


@given(plans, seen, times)
def test_no_step_before_its_time_or_without_its_reports(plan, evidence, now):
    verdict = judge(plan, evidence, now=now)
    if verdict.action in {Action.STEP, Action.DONE}:
        assert now >= plan.since + plan.now_at.dwell_s
        assert evidence.reports >= plan.now_at.min_reports
        assert (verdict.action is Action.DONE) == plan.is_last


@given(plans, seen, times)
def test_one_failure_never_halts(plan, evidence, now):
    verdict = judge(plan, replace(evidence, failed=min(1, evidence.failed)), now=now)
    assert verdict.code != "rollout_failing"


@given(plans, seen, times, st.integers(1, 100))
def test_more_failures_never_speak_for_a_release(plan, evidence, now, more):
    rank = [Action.HALT, Action.HOLD, Action.STEP, Action.DONE]
    worse = replace(
        evidence, well=max(0, evidence.well - more), failed=evidence.failed + more
    )
    if worse.reports == evidence.reports:
        before = judge(plan, evidence, now=now).action
        assert rank.index(judge(plan, worse, now=now).action) <= rank.index(before)


@given(plans, seen, times, machines)
def test_what_is_the_machines_fault_never_counts_against_it(plan, evidence, now, more):
    without = judge(plan, replace(evidence, reached=0), now=now)
    broken = replace(evidence, reached=0, other=evidence.other + more)
    assert judge(plan, broken, now=now) == without


@given(plans, seen, times, st.sampled_from(["halted", "done", "by_hand", "of_2030"]))
def test_a_plan_that_is_not_running_is_left_alone(plan, evidence, now, state):
    verdict = judge(replace(plan, state=state), evidence, now=now)
    assert (verdict.action, verdict.code) == (Action.HOLD, state)


@given(plans, seen, times)
def test_a_channel_that_a_person_paused_is_left_alone(plan, evidence, now):
    verdict = judge(plan, evidence, now=now, paused=True)
    assert (verdict.action, verdict.code) == (Action.HOLD, "paused")


@given(plans, seen)
def test_liars_about_the_old_release_raise_the_limit_to_twice_at_most(plan, evidence):
    limit = plan.halt.failed_permille / 1000
    assert limit <= watching.limit_of(plan, evidence) <= 2 * limit


@pytest.mark.parametrize(
    ("evidence", "now", "code"),
    [
        (Evidence(failed=1), NOW, "rollout_too_few"),
        (Evidence(failed=2), NOW, "rollout_failing"),
        (Evidence(well=95, failed=5), NOW, "rollout_unsure"),  # 5 of 100 can be 2 %
        (Evidence(well=190, failed=10), NOW, "rollout_failing"),
        (Evidence(well=1000, failed=1), NOW, "rollout_dwelling"),
        (Evidence(well=1000, failed=1), OVER, "rollout_due"),
        (Evidence(well=60), OVER, "rollout_too_few"),
        (Evidence(well=100, failed=2), OVER, "rollout_unsure"),
        # the old release fails as often: both run on broken machines
        (Evidence(well=970, failed=30), OVER, "rollout_unsure"),
        (
            Evidence(
                well=970,
                failed=30,
                base_version="1.0",
                base_well=960,
                base_failed=40,
            ),
            OVER,
            "rollout_due",
        ),
    ],
)
def test_what_is_decided(evidence, now, code):
    assert judge(PLAN, evidence, now=now).code == code


def test_a_bare_failure_rate_misfires_on_few_machines_and_this_does_not():
    """Two of forty is 5 %, twice and a half the limit; it may well be chance."""
    assert judge(PLAN, Evidence(well=38, failed=2), now=NOW).action is Action.HOLD


@pytest.mark.parametrize(
    ("heard", "now", "code"),
    [
        (400, OVER, "rollout_due"),
        (100, OVER, "rollout_silent"),
        (100, NOW, "rollout_dwelling"),
    ],
)
def test_machines_that_fall_silent_halt_it_once_the_time_is_over(heard, now, code):
    plan = replace(PLAN, halt=Limits(silent_permille=800))
    evidence = Evidence(well=heard, reached=1000)
    assert judge(plan, evidence, now=now).code == code


@pytest.mark.parametrize(
    ("heard", "silent_permille", "code"),
    [
        (499, 1000, "rollout_quiet"),
        (500, 1000, "rollout_due"),
        (150, 999, "rollout_due"),  # the plan's own limit counts alone
    ],
)
def test_silence_of_more_than_half_holds_and_never_halts(heard, silent_permille, code):
    """They may be off, or dead by the release: nobody can tell which."""
    halt = Limits(silent_permille=silent_permille)
    plan = replace(PLAN, halt=halt)
    verdict = judge(plan, Evidence(well=heard, reached=1000), now=OVER)
    assert verdict.code == code


@given(plans, seen)
def test_no_silence_halts_a_plan_that_sets_no_limit_for_it(plan, evidence):
    plan = replace(plan, halt=replace(plan.halt, silent_permille=1000))
    quiet = replace(evidence, well=0, failed=0, other=0)
    assert judge(plan, quiet, now=OVER).action is Action.HOLD


@pytest.mark.parametrize(
    ("reached", "code"), [(1000, "rollout_due"), (10, "rollout_excess")]
)
def test_praise_from_more_machines_than_it_reached_is_no_reason_to_go_on(reached, code):
    assert judge(PLAN, Evidence(well=500, reached=reached), now=OVER).code == code


def test_blame_from_more_machines_than_it_reached_halts_all_the_same():
    evidence = Evidence(failed=500, reached=10)
    assert judge(PLAN, evidence, now=OVER).code == "rollout_failing"


def test_a_step_too_small_to_tell_says_how_many_machines_it_takes():
    plan = replace(PLAN, steps=(Step(permille=10, min_reports=5), *STEPS[1:]))
    verdict = judge(plan, Evidence(well=10), now=OVER)
    assert verdict.code == "rollout_unsure"
    assert "79 machines without a failure" in verdict.reason


def test_a_step_that_reaches_fewer_than_have_to_tell_says_that_it_never_goes_on():
    verdict = judge(PLAN, Evidence(well=2, reached=2), now=NOW)
    assert verdict.code == "rollout_too_few"
    assert "never goes on by itself" in verdict.reason
    enough = judge(PLAN, Evidence(well=2, reached=200), now=NOW)
    assert "never" not in enough.reason


def pointer(plan, *, paused=False):
    return ChannelPointer(
        product="acme",
        channel="stable",
        paused=paused,
        floor_seq=0,
        releases=(Offer(version="2.0", seq=2, rollout=Rollout(permille=10)),),
        plan=plan,
    )


def read(custom):
    return parse_custom(Fields(custom, "it"), product="acme", channel="stable")


@given(plans)
def test_a_plan_comes_back_from_its_pointer_as_it_was(plan):
    assert read(pointer(plan).as_custom()) == pointer(plan)


def test_a_plan_changes_nothing_of_what_a_machine_installs():
    facts = Facts(now=NOW, machine_id="m", updater="0.1.0", platform="linux-x86_64")
    for plan in (None, PLAN, replace(PLAN, state="halted")):
        assert decide(pointer(plan), facts) == decide(pointer(None), facts)


def test_a_machine_says_why_its_channel_was_halted():
    facts = Facts(now=NOW, machine_id="m", updater="0.1.0", platform="linux-x86_64")
    halted = replace(PLAN, state="halted", reason="2.0 failed on 9 of 9 machines")
    reason = decide(pointer(halted, paused=True), facts).reason
    assert "paused: 2.0 failed on 9 of 9 machines" in reason


@pytest.mark.parametrize(
    "change",
    [
        {"steps": []},
        {"steps": [{"permille": 0, "dwell_s": 0, "min_reports": 0}]},
        {"steps": [STEPS[1].as_custom(), STEPS[0].as_custom()]},
        {"step": 3},
        {"reason": "\x1b[2J"},
        {"halt": {"confidence": 1000}},
        {"halt": {"confidence": 0.99}},
    ],
    ids=str,
)
def test_what_is_no_plan_is_refused(change):
    with pytest.raises(MalformedError):
        read(pointer(PLAN).as_custom() | {"plan": PLAN.as_custom() | change})


def test_steps_are_told_in_a_few_words():
    steps = (Step(permille=0, tags=("staff",)), Step(permille=5, tags=("a",)))
    assert described((*steps, STEPS[2])) == "staff -> 0.5 % + a -> all"


def test_a_limit_of_nothing_at_all_is_no_division_by_zero():
    """Nobody can be sure that less than no machine fails: it holds, and says why."""
    plan = replace(PLAN, halt=Limits(failed_permille=0))
    found = judge(plan, Evidence(well=100_000), now=plan.since + 10**6)
    assert (found.action, found.code) == (Action.HOLD, "rollout_unsure")


def test_a_halted_release_is_not_what_the_next_one_is_measured_by():
    """Else what failed everywhere doubles the limit of the one that heals it.

    And its few machines would hide how many the healer reaches: silence held nothing.
    """
    offers = {
        name: Offer(version=name, seq=seq, rollout=rollout)
        for name, seq, rollout in (
            ("3.0", 3, Rollout(permille=10)),
            ("2.0", 2, Rollout(permille=0)),
            ("1.1", 1, Rollout(permille=0, tags=("staff",))),
            ("1.0", 0, Rollout()),
        )
    }

    def beneath(*names):
        under = evidence.beneath(
            ChannelPointer(
                product="acme",
                channel="stable",
                paused=False,
                floor_seq=0,
                releases=tuple(offers[name] for name in names),
            )
        )
        return under and under.version

    assert beneath("3.0", "2.0", "1.0") == "1.0"
    assert beneath("3.0", "1.1", "1.0") == "1.1"
    assert beneath("3.0", "2.0") == beneath("3.0") == beneath() is None


@pytest.mark.parametrize(
    ("platforms", "others", "from_seq_min", "reached"),
    [
        (None, [None], 0, 250),
        (("a", "b"), [("a", "b")], 0, 250),
        (("a", "b", "c"), [("a", "b")], 1, 250),
        (("a",), [("a", "b")], 0, 0),  # machines of b never tell
        (("a",), [("a",), ("b",)], 0, 0),  # the same, one release further down
        (("a",), [None], 0, 0),
        (("a", "b"), [("a", "b")], 2, 0),  # nobody can who has not taken a stone
    ],
)
def test_silence_of_machines_that_cannot_take_a_release_is_none(
    platforms, others, from_seq_min, reached
):
    """Else a release for some platforms only is held for ever, or halted."""
    offers = (
        Offer(
            version="2.0",
            seq=3,
            rollout=Rollout(permille=250),
            platforms=platforms,
            from_seq_min=from_seq_min,
        ),
        *(
            Offer(version=f"1.{-n}", seq=1 - n, rollout=Rollout(), platforms=each)
            for n, each in enumerate(others)
        ),
    )
    ends = {"2.0": evidence.Ends(well=100), "1.0": evidence.Ends(well=900)}
    seen = evidence.gathered(
        replace(pointer(PLAN), releases=offers), ends.get, machines=1000, now=NOW
    )
    assert (seen.reached, seen.well, seen.base_well) == (reached, 100, 900)
