# SPDX-License-Identifier: Apache-2.0
"""What `release watch` does to a channel: a step, a halt, the end of the plan.

Decided without the lock, done with it, and only where the channel still says what was
judged: of two who watch, or of one and a person, the second finds another channel and
does nothing.
"""

from dataclasses import replace

from updaterd.core.channel import ChannelPointer
from updaterd.core.plan import DONE, HALTED, LONGEST_REASON, Plan
from updaterd.core.watching import Action, Verdict
from updaterd.release.channels import offers, steering
from updaterd.release.channels.steering import Steered
from updaterd.release.repository.catalog import Catalog


def plan_of(pointer: ChannelPointer) -> Plan | None:
    """Return the plan of a channel's newest release; None: nobody guards it."""
    plan = pointer.plan
    if plan is None or not pointer.releases:
        return None
    return plan if pointer.releases[0].version == plan.version else None


def changed(
    catalog: Catalog, judged: ChannelPointer, verdict: Verdict, *, now: int
) -> Steered | None:
    """Return the channel as a verdict wants it; None: there is nothing to do.

    Args:
        catalog: as it is now, with the workspace locked.
        judged: what the channel said when that was decided.
        verdict: what was decided.
        now: Unix seconds.

    Raises:
        RejectedError: the channel cannot say that.
    """
    before = catalog.pointer(judged.channel)
    plan = plan_of(before)
    if before != judged or plan is None or verdict.action is Action.HOLD:
        return None
    reason = verdict.reason[:LONGEST_REASON]
    if verdict.action is Action.HALT:
        plan = replace(plan, state=HALTED, since=now, reason=reason)
        pointer = replace(before, paused=True, reason=reason, plan=plan)
        return Steered(before=before, pointer=pointer)
    if verdict.action is Action.DONE:
        plan = replace(plan, state=DONE, since=now, reason=reason)
        return Steered(before=before, pointer=replace(before, plan=plan))
    plan = replace(plan, step=plan.step + 1, since=now, reason=reason)
    spelled = steering.spelled_out(catalog, judged.channel)
    top = spelled.releases[0]
    rollout = replace(top.rollout, permille=plan.now_at.permille, tags=plan.now_at.tags)
    wider = (replace(top, rollout=rollout), *spelled.releases[1:])
    pointer = replace(spelled, releases=offers.needed(wider), plan=plan)
    return steering.settled(catalog, before, pointer)
