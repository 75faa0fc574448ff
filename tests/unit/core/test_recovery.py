# SPDX-License-Identifier: Apache-2.0
"""Recovery over every combination of what the journal and the disk can say."""

from itertools import chain, combinations, product

import pytest

from updaterd.core.lifecycle import ENDS, TOUCHED, State
from updaterd.core.recovery import (
    Disk,
    Link,
    Step,
    Unfinished,
    decide,
    retry_after_s,
)

OLD, NEW, OLDER = "1.0.0", "1.1.0", "0.9.0"
VERSIONS = (OLD, NEW, OLDER)


def subsets(items):
    return [
        frozenset(chosen)
        for chosen in chain.from_iterable(
            combinations(items, n) for n in range(len(items) + 1)
        )
    ]


def disks():
    for kind, running, whole, previous in product(
        Link, (None, *VERSIONS), subsets(VERSIONS), (None, *VERSIONS)
    ):
        linked = kind in (Link.RELEASE, Link.DANGLING)
        if linked != (running is not None):
            continue
        if kind is Link.RELEASE and running not in whole:
            continue
        if kind is Link.DANGLING and running in whole:
            continue
        yield Disk(current=kind, running=running, whole=whole, previous=previous)


def open_ones():
    yield None
    for state, from_version, same_boot in product(
        (s for s in State if s not in ENDS), (None, OLD), (True, False)
    ):
        for by_hand, trials in ((False, 1), (True, 1), (True, 3), (True, 4)):
            yield Unfinished(
                state=state,
                version=NEW,
                from_version=from_version,
                same_boot=same_boot,
                by_hand=by_hand,
                trials=trials,
            )


EVERY = [
    (disk, open_, installed)
    for disk in disks()
    for open_ in open_ones()
    for installed in (None, OLD, NEW)
]


def test_the_combinations_are_many_enough_to_mean_something():
    assert 10_000 < len(EVERY)


def test_it_never_leads_to_a_release_that_is_not_whole():
    for disk, open_, installed in EVERY:
        verdict = decide(disk, open_, installed)

        if verdict.step in (Step.BACK, Step.FORWARD, Step.RESTORE, Step.RECORD):
            assert verdict.version in disk.whole


def test_the_dangerous_stretch_is_never_left_as_it_is():
    for disk, open_, installed in EVERY:
        if open_ is not None and open_.state in TOUCHED:
            step = decide(disk, open_, installed).step

            way_out = (Step.FORWARD, Step.BACK, Step.WITHDRAW, Step.BROKEN)
            assert step in way_out or (step is Step.GONE and not disk.whole)


def test_a_trial_nobody_watched_is_never_a_pass():
    for disk, open_, installed in EVERY:
        if open_ is not None and open_.state in (State.PROBATION, State.ROLLING_BACK):
            if open_.by_hand and open_.state is State.PROBATION:
                continue  # tried once more: see the next
            verdict = decide(disk, open_, installed)

            assert verdict.step is not Step.FORWARD
            assert verdict.version != open_.version


def test_what_a_person_ordered_is_finished_while_it_can_be():
    """Back to a whole release, from STAGED on; not for ever."""
    for disk, open_, installed in EVERY:
        if open_ is None or not open_.by_hand:
            continue
        forward = decide(disk, open_, installed).step is Step.FORWARD
        possible = NEW in disk.whole and disk.current is not Link.OCCUPIED
        match open_.state:
            case State.STAGED:
                assert forward == (possible and disk.current is Link.RELEASE)
            case State.ACTIVATING:
                assert forward == possible
            case State.PROBATION:
                assert forward == (possible and open_.trials <= 3)
            case _:
                assert not forward


def test_nothing_is_done_only_when_disk_and_journal_agree():
    for disk, open_, installed in EVERY:
        if decide(disk, open_, installed).step is Step.NOTHING:
            assert open_ is None
            assert disk.running == installed


def test_nothing_replaces_what_a_person_put_at_current():
    """A directory or foreign link is taken over only when nothing was managed."""
    for disk, open_, installed in EVERY:
        if disk.current in (Link.OCCUPIED, Link.FOREIGN):
            touched = open_ is not None and open_.state in TOUCHED
            step = decide(disk, open_, installed).step
            if disk.current is Link.OCCUPIED and (touched or installed is not None):
                assert step is Step.BROKEN
            elif not touched:
                assert step in (Step.ADOPT, Step.BROKEN)


def test_every_verdict_but_nothing_says_why():
    for disk, open_, installed in EVERY:
        verdict = decide(disk, open_, installed)
        rolling = open_ is not None and open_.state is State.ROLLING_BACK

        assert verdict.reason or verdict.step is Step.NOTHING or rolling


def test_deciding_again_after_the_step_finds_nothing_left_to_do():
    """Restored, recorded or forgotten, the next start agrees with the disk."""
    for disk, open_, installed in EVERY:
        verdict = decide(disk, open_, installed)
        if verdict.step in (Step.RESTORE, Step.RECORD):
            after = Disk(
                current=Link.RELEASE,
                running=verdict.version,
                whole=disk.whole,
                previous=disk.previous,
            )
            assert decide(after, None, verdict.version).step is Step.NOTHING
        if verdict.step is Step.GONE and disk.current is Link.ABSENT:
            assert decide(disk, open_, installed, anew=True).step is Step.FORGET
            assert decide(disk, None, None).step is Step.NOTHING


def test_what_is_gone_is_installed_anew_only_when_a_person_says_so():
    """A disk that is not mounted looks the same."""
    for disk, open_, installed in EVERY:
        assert decide(disk, open_, installed).step is not Step.FORGET
        if installed is not None and not disk.whole and open_ is None:
            step = decide(disk, open_, installed, anew=False).step
            assert step in (Step.GONE, Step.BROKEN)


def test_only_what_has_a_package_may_stand_aside():
    """`current` of an application comes back; that of updaterd a person removed."""
    for disk, open_, installed in EVERY:
        assert decide(disk, open_, installed).step is not Step.STAND_ASIDE
        verdict = decide(disk, open_, installed, packaged=True)
        if verdict.step is Step.STAND_ASIDE:
            assert disk.current is Link.ABSENT
        if disk.current is Link.ABSENT:
            assert verdict.step is not Step.RESTORE


def test_stop_of_the_machine_excuses_a_trial_a_few_times():
    disk = Disk(current=Link.RELEASE, running=NEW, whole=frozenset({OLD, NEW}))
    for trials, same_boot in product(range(1, 9), (True, False)):
        open_ = Unfinished(
            state=State.PROBATION,
            version=NEW,
            from_version=OLD,
            same_boot=same_boot,
            trials=trials,
            excused=True,
        )
        forward = decide(disk, open_, OLD).step is Step.FORWARD
        assert forward == (trials <= 5)


@pytest.mark.parametrize(
    ("same_boot", "code"),
    [(True, "interrupted_in_probation"), (False, "rebooted_in_probation")],
)
def test_a_reboot_in_probation_is_told_from_a_dead_worker(same_boot, code):
    disk = Disk(current=Link.RELEASE, running=NEW, whole=frozenset({OLD, NEW}))
    open_ = Unfinished(
        state=State.PROBATION, version=NEW, from_version=OLD, same_boot=same_boot
    )

    verdict = decide(disk, open_, OLD)

    assert (Step.BACK, OLD, code) == (verdict.step, verdict.version, verdict.code)


def test_failures_that_are_pushed_again_wait_ever_longer():
    waits = [retry_after_s("unhealthy", n, is_wanted=True) for n in range(1, 12)]

    assert waits == sorted(waits)
    assert waits[0] >= 3600
    assert waits[-1] <= 30 * 86400


def test_a_release_that_was_not_well_does_not_come_back_by_itself():
    """Only a newer seq, a new push of it, or a person brings it on again."""
    for code in ("unhealthy", "restart_failed", "hook_failed"):
        assert float("inf") == retry_after_s(code, 1, is_wanted=False)


def test_a_killed_worker_costs_no_delay_at_first():
    """Three SIGKILLs say little about the release; a fourth begins to."""
    for is_wanted in (False, True):
        waits = [
            retry_after_s("interrupted_in_probation", n, is_wanted=is_wanted)
            for n in range(1, 6)
        ]

        assert [0.0, 0.0, 0.0] == waits[:3]
        assert 0 < waits[3] < waits[4]


def test_a_roll_back_by_hand_stands_until_a_newer_release():
    assert float("inf") == retry_after_s("rolled_back_by_hand", 1, is_wanted=True)
