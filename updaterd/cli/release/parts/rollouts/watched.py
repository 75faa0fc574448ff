# SPDX-License-Identifier: Apache-2.0
"""A rollout that has a plan, and what was judged of it: for people, for programs."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from updaterd.core.plan import BY_HAND, HALTED, RUNNING, Plan, described, reach_of
from updaterd.core.watching import Action, Evidence, Verdict

if TYPE_CHECKING:
    from updaterd.cli.release.parts.rollouts.proposing import Proposed
    from updaterd.core.channel import ChannelPointer
    from updaterd.errors import UpdaterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A channel whose newest release has a plan, and what was judged of it.

    Attributes:
        pointer: what it says now.
        evidence: what machines reported; None: nothing was asked.
        verdict: what was judged.
        acted: that was signed.
        error: why nothing could be judged, or signed.
        untold: why machines could not be told of what was signed, now or before.
        proposed: what waits for somebody else's key; None: nothing.
    """

    pointer: "ChannelPointer"
    evidence: Evidence | None
    verdict: Verdict
    acted: bool = False
    error: "UpdaterError | None" = None
    untold: "UpdaterError | None" = None
    proposed: "Proposed | None" = None

    @property
    def channel(self) -> tuple[str, str]:
        """Return the product and its channel."""
        return self.pointer.product, self.pointer.channel

    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        pointer, plan = self.pointer, self.pointer.plan
        return {
            "product": pointer.product,
            "channel": pointer.channel,
            "paused": pointer.paused,
            "plan": plan.as_custom() if plan else None,
            "action": str(self.verdict.action),
            "code": self.verdict.code,
            "reason": self.verdict.reason,
            "next_at": self.verdict.next_at,
            "counts": self.evidence.as_counts() if self.evidence else None,
            "acted": self.acted,
            "told": self.untold is None,
            "proposed": self.proposed.as_json() if self.proposed else None,
        }

    def lines(self) -> list[str]:
        """Return it for people."""
        plan, evidence = self.pointer.plan, self.evidence
        if plan is None:
            return []
        where = f"{self.pointer.product}/{self.pointer.channel}"
        steps = described(plan.steps)
        page = [f"{where} {plan.version}: {plan.state.replace('_', ' ')}, {steps}"]
        if plan.state == RUNNING:
            page.append(
                f"  step {plan.step + 1} of {len(plan.steps)}, "
                f"{reach_of(plan.now_at)}, since {_clock(plan.since)}"
            )
        if evidence is not None:
            page.append(f"  {_counts(evidence)}")
        done = {Action.STEP: "stepped on", Action.HALT: "halted", Action.DONE: "done"}
        word = done.get(self.verdict.action, "") if self.acted else ""
        page.append(f"  {word or self.verdict.action}: {self.verdict.reason}")
        page += _what_to_do(plan, acted=self.acted)
        if self.proposed is not None:
            page += self.proposed.lines()
        if self.untold is not None:
            page.append(f"  signed, and machines were not told: {self.untold.cause}")
        if self.verdict.next_at is not None:
            page.append(f"  next step not before {_clock(self.verdict.next_at)}")
        return page


def _what_to_do(plan: Plan, *, acted: bool) -> list[str]:
    """Return how a person goes on with a plan that nobody moves any more."""
    if plan.state == HALTED:
        since = "" if acted else f"since {_clock(plan.since)}; "
        line = (
            f"  {since}machines install nothing from the channel. Push a release that "
            "works: that ends it; or `updaterd release resume`, if you know better"
        )
        return [line]
    if plan.state == BY_HAND:
        reaches = ", ".join(str(step.permille) for step in plan.steps)
        line = (
            "  `watch` leaves it alone; `updaterd release rollout --permille N` with "
            f"one of {reaches} gives it back"
        )
        return [line]
    return []


def _counts(evidence: Evidence) -> str:
    reached = f" of about {evidence.reached}" if evidence.reached else ""
    text = f"well on {evidence.well} machines{reached}, failed on {evidence.failed}"
    if evidence.other:
        text += f", on {evidence.other} not by its own fault"
    if evidence.base_well + evidence.base_failed:
        trials = evidence.base_well + evidence.base_failed
        text += (
            f"; {evidence.base_version} failed on {evidence.base_failed} of {trials}"
        )
    return text


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
