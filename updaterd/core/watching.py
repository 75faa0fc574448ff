# SPDX-License-Identifier: Apache-2.0
"""What to do about a rollout that is under way: hold, step on, halt, or it is done.

Theory. Machines are counted, each once, by how the release ended there last. Only ends
that are the release's own fault speak against it. A share is believed to be above or
below a limit as far as the counts allow (`core/odds.py`): one failure of three machines
proves nothing, and five of a hundred do.

    paused, by hand, halted, done          Hold: not ours
    failing above the limit is likely      Halt
      enough, and two machines failed
    the step's time is over, and too       Halt
      many of its machines are silent
    time not over, too few reports,        Hold
      too few to tell, more than half
      of its machines are silent, or
      more speak than it can have reached
    no step is left                        Done
    otherwise                              Step

What everybody else runs may fail as often, such as on machines that are broken anyhow:
the limit rises with the failures of the release beneath, to twice itself at most, so
that whoever lies about the old release cannot open the door for the new one.

Pure: a plan, counts and the time in, a verdict out.
"""

import math
from enum import StrEnum

from updaterd.core import odds
from updaterd.core.dataclass import dataclass
from updaterd.core.plan import DONE, HALTED, RUNNING, Plan, reach_of

STEP_CONFIDENCE = 0.8
"""How likely the rate of failures has to be below the limit before more machines."""
LEAST_FAILED = 2
BASELINE_TRIALS = 50
"""Machines that must have told about the release beneath before it counts."""
BASELINE_FACTOR = 2
EXCESS, EXCESS_FACTOR = 100, 2
"""Machines, and times the expected, beyond which some of those that report must lie."""
LEAST_EXPECTED = 20
"""Machines that a step must reach before silence can mean anything."""
LOUD_ENOUGH = 0.5
"""The share of a step's machines that must have told something, where the plan sets no
limit of its own. Too few is no reason to halt: machines are off at night. Nor is it one
to go on: those that a release leaves without a network, or dead, never tell."""
_ALL = 1000


class Action(StrEnum):
    """What is to be done."""

    HOLD = "hold"
    STEP = "step"
    HALT = "halt"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Machines, each counted once, by how a release ended there last.

    Attributes:
        well: it runs.
        failed: it does not, by the release's own fault.
        other: it does not, by the machine's or the network's, or by an unknown one.
        reached: machines that the step reaches, as far as one knows; 0: not known.
        base_version: the release beneath, which the others have.
        base_well: machines where that ran.
        base_failed: machines where it failed by its own fault.
    """

    well: int = 0
    failed: int = 0
    other: int = 0
    reached: int = 0
    base_version: str = ""
    base_well: int = 0
    base_failed: int = 0

    @property
    def reports(self) -> int:
        """Return the machines that say something about the release."""
        return self.well + self.failed

    def as_counts(self) -> dict[str, object]:
        """Return it as it is written down with what is decided on it."""
        counts: dict[str, object] = {
            "well": self.well,
            "failed": self.failed,
            "other": self.other,
        }
        if self.reached:
            counts["reached"] = self.reached
        if self.base_version:
            counts["base"] = {
                "version": self.base_version,
                "well": self.base_well,
                "failed": self.base_failed,
            }
        return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do, and why.

    Attributes:
        action: what.
        code: stable, snake_case; scripts match it.
        reason: one sentence for a person.
        next_at: when time alone may change it, Unix seconds; None: it cannot.
    """

    action: Action
    code: str
    reason: str
    next_at: float | None = None


def limit_of(plan: Plan, evidence: Evidence) -> float:
    """Return the share of failures above which a release is stopped.

    What the release beneath fails at counts, up to twice the plan's own limit.
    """
    limit = plan.halt.failed_permille / 1000
    trials = evidence.base_well + evidence.base_failed
    if trials < BASELINE_TRIALS:
        return limit
    baseline = (evidence.base_failed + 1) / (trials + 2)
    return min(max(limit, baseline), BASELINE_FACTOR * limit)


def judge(
    plan: Plan, evidence: Evidence, *, now: float, paused: bool = False
) -> Verdict:
    """Return what to do about a rollout.

    Args:
        plan: its plan, and where it stands.
        evidence: what machines told.
        now: Unix seconds.
        paused: the channel is, though the plan did not do it.
    """
    if plan.state != RUNNING:
        return _not_ours(plan)
    if paused:
        return Verdict(
            action=Action.HOLD,
            code="paused",
            reason="the channel is paused by hand: `updaterd release resume` goes on",
        )
    limit = limit_of(plan, evidence)
    over_at = plan.since + plan.now_at.dwell_s
    halt = _failing(plan, evidence, limit)
    if halt is None and now >= over_at:
        halt = _silent(plan, evidence)
    return halt or _onward(plan, evidence, limit, over_at=over_at, now=now)


def _not_ours(plan: Plan) -> Verdict:
    texts = {
        HALTED: f"halted: {plan.reason}",
        DONE: f"{plan.version} is rolled out",
    }
    text = texts.get(plan.state, f"{plan.version} is rolled out by hand")
    return Verdict(action=Action.HOLD, code=plan.state, reason=text)


def _failing(plan: Plan, evidence: Evidence, limit: float) -> Verdict | None:
    if evidence.failed < LEAST_FAILED:
        return None
    sure = odds.above(evidence.failed, evidence.reports, limit)
    if sure < plan.halt.confidence / 1000:
        return None
    reason = (
        f"{plan.version} failed on {evidence.failed} of {evidence.reports} machines, "
        f"{_percent(limit)} may"
    )
    return Verdict(
        action=Action.HALT,
        code="rollout_failing",
        reason=reason + _baseline(evidence, limit, plan),
    )


def _silent(plan: Plan, evidence: Evidence) -> Verdict | None:
    most = plan.halt.silent_permille / 1000
    heard = evidence.reports + evidence.other
    silent = evidence.reached - heard
    if evidence.reached < LEAST_EXPECTED or silent <= 0 or most >= 1.0:
        return None
    if odds.above(silent, evidence.reached, most) < plan.halt.confidence / 1000:
        return None
    return Verdict(
        action=Action.HALT,
        code="rollout_silent",
        reason=f"about {silent} of {evidence.reached} machines that "
        f"{plan.version} reached say nothing, {_percent(most)} may",
    )


def _is_quiet(plan: Plan, evidence: Evidence, heard: int) -> bool:
    """Tell whether too many say nothing to step on, where the plan names no limit."""
    return (
        plan.halt.silent_permille == _ALL
        and evidence.reached >= LEAST_EXPECTED
        and heard < LOUD_ENOUGH * evidence.reached
    )


def _onward(
    plan: Plan, evidence: Evidence, limit: float, *, over_at: float, now: float
) -> Verdict:
    """Return whether to step on: the time is over, and the counts allow it."""
    doubt = _doubt(plan, evidence, limit)
    if doubt is not None:
        code, reason = doubt
        next_at = over_at if now < over_at else None
        return Verdict(action=Action.HOLD, code=code, reason=reason, next_at=next_at)
    failures = _failures(evidence)
    if now < over_at:
        return Verdict(
            action=Action.HOLD,
            code="rollout_dwelling",
            reason=f"{failures}; the step lasts on",
            next_at=over_at,
        )
    if plan.is_last:
        return Verdict(action=Action.DONE, code="rollout_done", reason=failures)
    reach = reach_of(plan.steps[plan.step + 1])
    return Verdict(
        action=Action.STEP, code="rollout_due", reason=f"{failures}: on to {reach}"
    )


def _doubt(plan: Plan, evidence: Evidence, limit: float) -> tuple[str, str] | None:
    """Return why the counts do not allow to step on, a code and a sentence."""
    needed, reached = plan.now_at.min_reports, evidence.reached
    if evidence.reports < needed:
        of = f" of about {reached}" if reached else ""
        reason = f"{evidence.reports} machines{of} told how it ended, {needed} have to"
        if 0 < reached < needed:
            reason += (
                ": it reaches too few for that, and never goes on by itself; step by "
                "hand (`updaterd release rollout`), or push with another plan"
            )
        return "rollout_too_few", reason
    heard = evidence.reports + evidence.other
    tagged = any(step.tags for step in plan.steps[: plan.step + 1])
    if reached and not tagged and heard > EXCESS + EXCESS_FACTOR * reached:
        lie = (
            f"{heard} machines report {plan.version}, which reached about {reached}: "
            "some lie; look who may report, then step by hand"
        )
        return "rollout_excess", lie
    if not tagged and _is_quiet(plan, evidence, heard):
        quiet = (
            f"about {reached - heard} of {reached} machines that {plan.version} "
            "reached say nothing: they are off, or it left them without a voice; look "
            "at some of them, then wait, or step by hand"
        )
        return "rollout_quiet", quiet
    fine = odds.below(evidence.failed, evidence.reports, limit)
    if fine < STEP_CONFIDENCE:
        unsure = (
            f"{_failures(evidence)}: that it is less than {_percent(limit)} of all is "
            f"{_percent(fine)} likely, "
            f"{_percent(STEP_CONFIDENCE)} is needed{_lacking(evidence, limit)}"
        )
        return "rollout_unsure", unsure
    return None


def _failures(evidence: Evidence) -> str:
    return f"{evidence.failed} of {evidence.reports} machines failed"


def _lacking(evidence: Evidence, limit: float) -> str:
    """Return how many machines would do if none of them failed, where none did."""
    if evidence.failed or not 0 < limit < 1:
        return ""  # of no limit but these can one ever be sure
    needed = math.ceil(math.log(1 - STEP_CONFIDENCE) / math.log1p(-limit)) - 1
    return f": {needed} machines without a failure"


def _baseline(evidence: Evidence, limit: float, plan: Plan) -> str:
    if limit * 1000 <= plan.halt.failed_permille:
        return ""
    trials = evidence.base_well + evidence.base_failed
    return f" ({evidence.base_version} failed on {evidence.base_failed} of {trials})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
