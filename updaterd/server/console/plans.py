# SPDX-License-Identifier: Apache-2.0
"""A guarded rollout as the console shows it: its steps, the evidence, what comes next.

Judged by the rule that `updaterd release watch` acts by, on the same counts; here it
only foretells. What was signed is what the channel's pointer says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from updaterd.core.channel import ChannelPointer
from updaterd.core.evidence import Ends, ends_of, gathered
from updaterd.core.plan import HALTED, RUNNING, Plan, reach_of
from updaterd.core.watching import Evidence, Verdict, judge
from updaterd.server.console.figures import fault_of
from updaterd.server.reports.contract import ReleaseCounts

Find = Callable[[str], ReleaseCounts | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One step.

    Attributes:
        reach: whom it reaches, in a few words.
        dwell_s: how long it lasts at least.
        min_reports: machines that have to tell how the release ended.
        state: `over`, `now`, `halted`, or "" where it has not come.
    """

    reach: str
    dwell_s: int
    min_reports: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A plan, and how things stand.

    Attributes:
        plan: as it was signed.
        steps: its rows.
        evidence: what machines told.
        verdict: what `release watch` would do now.
    """

    plan: Plan
    steps: Sequence[StepRow]
    evidence: Evidence
    verdict: Verdict

    @property
    def is_running(self) -> bool:
        """Tell whether `release watch` moves it."""
        return self.plan.state == RUNNING

    @property
    def is_halted(self) -> bool:
        """Tell whether `release watch` stopped it."""
        return self.plan.state == HALTED


def guarded(
    pointer: ChannelPointer | None, find: Find, *, machines: int, now: float
) -> Guarded | None:
    """Return how a channel's plan stands; None: its newest release has none.

    Args:
        pointer: what the channel says; None: it cannot be read.
        find: the counts of a release, by its name.
        machines: those that follow the channel.
        now: Unix seconds.
    """
    if pointer is None or pointer.plan is None or not pointer.releases:
        return None
    plan = pointer.plan
    if plan.version != pointer.releases[0].version:
        return None
    evidence = gathered(
        pointer, lambda version: _ends(find(version)), machines=machines, now=now
    )
    paused = pointer.paused and not pointer.halted
    return Guarded(
        plan=plan,
        steps=[_row(plan, number) for number in range(len(plan.steps))],
        evidence=evidence,
        verdict=judge(plan, evidence, now=now, paused=paused),
    )


def _ends(counts: ReleaseCounts | None) -> Ends:
    codes = counts.codes if counts is not None else {}
    return ends_of(
        (outcome, fault_of(code), machines)
        for (outcome, code), machines in codes.items()
    )


def _row(plan: Plan, number: int) -> StepRow:
    step, state = plan.steps[number], ""
    if number < plan.step or plan.state == "done":
        state = "over"
    elif number == plan.step:
        state = {RUNNING: "now", HALTED: "halted"}.get(plan.state, "")
    return StepRow(
        reach=reach_of(step),
        dwell_s=step.dwell_s,
        min_reports=step.min_reports,
        state=state,
    )
