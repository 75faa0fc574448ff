# SPDX-License-Identifier: Apache-2.0
"""What to do about what a dead run left: from the journal and the disk, a verdict.

Theory. Four facts decide: the open deployment's state, what `current` is, what the
journal says is installed, and which releases are whole on disk. A release is whole
exactly when `releases/VERSION` exists, because it gets that name only by a rename
after everything in it is durable.

- Before ACTIVATING nothing that runs was touched: go on where it stopped.
- In ACTIVATING the new release is not known to be bad: go forward (the swap is
  idempotent), or back when it is no longer whole on disk.
- In PROBATION nobody watched the end of the trial. That is not a pass: go back.
  After a reboot the release itself may have brought the machine down, so it counts
  as a failure; when only the worker died, the release may be tried again at once,
  a few times. When the machine, or updaterd, had been told to stop, nobody is to
  blame: the trial is held again, a few times.
- A roll back that a person ordered is finished, from STAGED on: its target has run
  here, and what is left is what that person wanted to leave. Only when its trial was
  cut short again and again does it count as failed, and is undone.
- In ROLLING_BACK go on going back. When there is nothing to go back to, a person is
  told, once: the deployment ends, and the next release may heal the machine.
- With nothing open, `current` should be what the journal says is installed. Where
  it names another whole release a person moved it, and the disk is right.
- Without any release on disk, although the journal has one installed, a disk is
  missing more likely than everything was deleted: nothing is installed in its place
  until a person says so.
- updaterd itself runs without `current`, too: its package. Who removes that link
  wants this, and it stands until a person ends it.

Pure: `decide` is a table over values, tested over every combination.
"""

from enum import StrEnum

from updaterd.core.dataclass import dataclass
from updaterd.core.lifecycle import TOUCHED, State

MAX_BLOCK_S = 30 * 86400.0
_FREE_RETRIES = 3
"""Interrupted trials that are held against nobody."""
_FREE_STOPS = 5
"""Trials in a row that ended with the machine; one more, and the release did it."""


STOOD_ASIDE = (
    "`current` was removed by hand: the packaged release runs; "
    "`updaterd unhold updaterd` ends that"
)


class Link(StrEnum):
    """What is found at the name `current`."""

    ABSENT = "absent"
    RELEASE = "release"  # a link to a directory releases/VERSION
    DANGLING = "dangling"  # a link to releases/VERSION that is not there
    FOREIGN = "foreign"  # a link to somewhere else
    OCCUPIED = "occupied"  # not a link at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What is on the disk of one product.

    Attributes:
        current: what stands at `current`.
        running: the version that `current` names, for RELEASE and DANGLING.
        whole: versions that have a directory in `releases`.
        previous: the version that `previous` names, whole or not.
    """

    current: Link
    running: str | None = None
    whole: frozenset[str] = frozenset()
    previous: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """The open deployment.

    Attributes:
        same_boot: the machine was not restarted since.
        by_hand: a person ordered it, back to a release that has run here.
        trials: how often its trial was begun.
        excused: the trial ended because the machine, or updaterd, was told to stop.
    """

    state: State
    version: str
    from_version: str | None
    same_boot: bool = True
    by_hand: bool = False
    trials: int = 0
    excused: bool = False


class Step(StrEnum):
    """What `pipeline.recover` does."""

    NOTHING = "nothing"
    CONTINUE = "continue"  # before activation: the next update resumes it
    FORWARD = "forward"  # swap again, then the trial
    BACK = "back"  # return to `version`, which is whole on disk
    WITHDRAW = "withdraw"  # nothing to return to: remove `current`
    RECORD = "record"  # the journal takes over what the disk says
    RESTORE = "restore"  # `current` is gone: point it at `version` again
    FORGET = "forget"  # nothing left on disk: as if never installed
    GONE = "gone"  # the same, and nobody said that it should be so: wait
    STAND_ASIDE = "stand_aside"  # a person removed `current`: leave it so
    ADOPT = "adopt"  # an application stands there that updaterd did not put there
    BROKEN = "broken"  # a person must look


@dataclass(frozen=True, slots=True)
class Verdict:
    """A step, the release it is about, and why, for the journal and for people."""

    step: Step
    version: str | None
    code: str
    reason: str


def decide(
    disk: Disk,
    open_: Unfinished | None,
    installed: str | None,
    *,
    anew: bool = False,
    packaged: bool = False,
) -> Verdict:
    """Return what to do first, before any new update.

    Args:
        disk: what is on disk.
        open_: the deployment that did not end, if there is one.
        installed: the version that the journal says is installed.
        anew: a person wants it installed, whatever was there.
        packaged: without `current` the product's package runs: updaterd itself.
    """
    verdict = _decide(disk, open_, installed)
    removed = disk.current is Link.ABSENT and disk.whole
    if packaged and removed and _was_there(open_, installed):
        return _stood_aside()
    if verdict.step is Step.FORGET and not anew:
        return Verdict(
            Step.GONE,
            None,
            "tree_gone",
            f"the journal has {installed or 'a release'} installed, and there is no "
            "release on disk",
        )
    return verdict


def _was_there(open_: Unfinished | None, installed: str | None) -> bool:
    """Tell whether `current` has been, and no step of updaterd took it away."""
    match open_:
        case Unfinished(state=State.ROLLING_BACK, from_version=None):
            return False
        case Unfinished(state=State.PROBATION):
            return True
        case _:
            return installed is not None


def _stood_aside() -> Verdict:
    return Verdict(
        Step.STAND_ASIDE,
        None,
        "left_for_package",
        STOOD_ASIDE,
    )


def _decide(disk: Disk, open_: Unfinished | None, installed: str | None) -> Verdict:
    if open_ is not None and (open_.state in TOUCHED or _is_ordered(disk, open_)):
        return _touched(disk, open_)
    settled = _settled(disk, installed)
    if open_ is not None and settled.step is Step.NOTHING:
        return Verdict(
            Step.CONTINUE,
            open_.version,
            "resumed",
            f"{open_.version} was interrupted in {open_.state}; going on from there",
        )
    return settled


def _is_ordered(disk: Disk, open_: Unfinished) -> bool:
    """Tell whether a person's order was journalled, and can be carried out yet."""
    ready = disk.current is Link.RELEASE and open_.version in disk.whole
    return open_.by_hand and open_.state is State.STAGED and ready


def _goes_forward(disk: Disk, open_: Unfinished) -> bool:
    if open_.version not in disk.whole:
        return False
    if open_.state in (State.STAGED, State.ACTIVATING):
        return True
    again = open_.by_hand and open_.trials <= _FREE_RETRIES
    again = again or (open_.excused and open_.trials <= _FREE_STOPS)
    return open_.state is State.PROBATION and again


def _touched(disk: Disk, open_: Unfinished) -> Verdict:
    """Return the way out of the stretch in which `current` moves."""
    if disk.current is Link.OCCUPIED:
        return _occupied()
    if _goes_forward(disk, open_):
        activity = "rolling back by hand to" if open_.by_hand else "activating"
        if open_.excused:
            activity += ", by a stop of the machine,"
        return Verdict(
            Step.FORWARD,
            open_.version,
            "resumed",
            f"interrupted while {activity} {open_.version}; going on",
        )
    if open_.state is State.ACTIVATING:
        code, reason = "staged_tree_gone", f"{open_.version} is not on disk any more"
    elif open_.state is State.ROLLING_BACK:
        code, reason = "", ""  # the journal has them already
    elif not open_.same_boot:
        code = "rebooted_in_probation"
        reason = f"the machine restarted while {open_.version} was on trial"
    else:
        code = "interrupted_in_probation"
        reason = f"the updater died while {open_.version} was on trial"
    return _back(disk, open_, code, reason)


def _back(disk: Disk, open_: Unfinished, code: str, reason: str) -> Verdict:
    candidates = (open_.from_version, disk.previous)
    for version in candidates:
        if version is not None and version != open_.version and version in disk.whole:
            return Verdict(Step.BACK, version, code, reason)
    if open_.from_version is None:
        # A first install that failed: nothing ran before, nothing runs after.
        return Verdict(Step.WITHDRAW, None, code, reason)
    if not disk.whole and disk.current in (Link.ABSENT, Link.DANGLING):
        return _nothing_left()
    return Verdict(
        Step.BROKEN,
        open_.from_version,
        "nothing_to_return_to",
        f"{reason or 'rolling back'}, but {open_.from_version} is not on disk",
    )


def _occupied() -> Verdict:
    return Verdict(
        Step.BROKEN,
        None,
        "current_not_a_link",
        "`current` is a directory or a file, not a link to a release",
    )


def _settled(disk: Disk, installed: str | None) -> Verdict:
    """Return how journal and disk fit together when nothing was moving."""
    match disk.current:
        case Link.RELEASE if disk.running == installed:
            return Verdict(Step.NOTHING, installed, "", "")
        case Link.RELEASE:
            return Verdict(
                Step.RECORD,
                disk.running,
                "found_on_disk",
                f"`current` names {disk.running}, the journal said "
                f"{installed or 'nothing'}: the disk is right",
            )
        case Link.OCCUPIED | Link.FOREIGN if installed is None:
            return Verdict(
                Step.ADOPT, None, "adopting", "an application is installed already"
            )
        case Link.OCCUPIED:
            return _occupied()
        case Link.FOREIGN:
            return Verdict(
                Step.BROKEN,
                installed,
                "current_is_foreign",
                "`current` points outside `releases`; a person moved it",
            )
        case Link.ABSENT | Link.DANGLING:
            return _restore(disk, installed)


def _restore(disk: Disk, installed: str | None) -> Verdict:
    if installed is None and disk.current is Link.ABSENT:
        return Verdict(Step.NOTHING, None, "", "")
    for version in (installed, disk.previous):
        if version is not None and version in disk.whole:
            return Verdict(
                Step.RESTORE,
                version,
                "current_restored",
                f"`current` was gone; it names {version} again",
            )
    return _nothing_left()


def _nothing_left() -> Verdict:
    """Return what a person led to who deleted everything, or moved it."""
    return Verdict(
        Step.FORGET, None, "nothing_on_disk", "no release is left on disk; starting new"
    )


_PASSING = frozenset({
    "interrupted_in_probation",
    "rebooted_in_probation",
    "no_usable_bundle",
    "label_in_use",
})
"""Failures that say more about the moment than about the release."""
_FIRST_S = {
    "interrupted_in_probation": 60.0,
    "rebooted_in_probation": 600.0,
    "no_usable_bundle": 600.0,
}


def retry_after_s(code: str, failures: int, *, is_wanted: bool) -> float:
    """Return how long a release that failed here is left alone, in seconds.

    A newer `seq` is never delayed by this: the block names one release. One that was
    not well stays away until it is announced anew or a person asks, and even then for
    a time that grows; what may have been bad luck is tried again by itself.

    Args:
        code: why it failed.
        failures: how often it failed on this machine, this time included.
        is_wanted: somebody wants it: it was announced anew since, or a person typed.
    """
    if not is_wanted and code not in _PASSING:
        return float("inf")
    if code == "rolled_back_by_hand":
        return float("inf")
    failures = max(1, failures)
    if code == "interrupted_in_probation":
        # The worker was killed; the release was not seen to be bad.
        failures -= _FREE_RETRIES
        if failures < 1:
            return 0.0
    first = _FIRST_S.get(code, 6 * 3600.0)
    return min(MAX_BLOCK_S, first * 4.0 ** min(failures - 1, 16))
