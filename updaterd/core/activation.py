# SPDX-License-Identifier: Apache-2.0
"""When a release that is staged may be activated, and what it waits for.

Theory. A release is fetched and proven as soon as there is one; what can wait is the
moment when `current` moves, because a person is at work in the application. Four
things ask for that: the owner's `activate`, a person or the application (Postpone), the
application as long as it says so (Inhibit), and the maintenance window. None of them
keeps a release beyond the deadline: the first pending update + `max_deferral`.

    before all   nothing is installed yet, a person said `--now`, the deadline
    then         Inhibit: an application knows better than who asks
    then         Apply, a critical release
    then         Postpone: not before, and then at once
    then         what `activate` says

Pure: the pipeline hands in what the journal, the locks and the kernel say.
"""

import math

from updaterd.core.channel import Offer
from updaterd.core.dataclass import dataclass
from updaterd.core.decision import Wait
from updaterd.core.deferral import AT_EXIT, AT_ONCE, ON_REQUEST, WINDOW
from updaterd.core.units import format_duration
from updaterd.core.windows import Span

_SOONEST_S, _LATEST_S = 30.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is true when a staged release could be activated. Times are Unix seconds.

    Attributes:
        mode: the product's `activate`.
        is_first: nothing is installed yet.
        forced: a person said `--now`.
        requested: somebody asked for this release to be activated.
        urgent: it is a critical release.
        staged_at: since when it is ready.
        deadline: when nothing counts any more.
        postponed_until: what a person asked for.
        inhibited: why the application asks to wait; empty: it does not.
        in_use: whether a process runs from the release that is left.
        window: the open maintenance window, or the next.
    """

    now: float
    mode: str = AT_ONCE
    is_first: bool = False
    forced: bool = False
    requested: bool = False
    urgent: bool = False
    staged_at: float = 0.0
    deadline: float = math.inf
    postponed_until: float | None = None
    inhibited: str = ""
    in_use: bool = False
    window: Span | None = None


def wait(  # noqa: PLR0911 - a rule a line, in their order
    offer: Offer, moment: Moment
) -> Wait | None:
    """Return what a staged release waits for; None: it may be activated."""
    if moment.is_first or moment.forced or moment.now >= moment.deadline:
        return None
    soon = _look_again_at(moment)
    if moment.inhibited:
        why = f"asks to wait: {moment.inhibited}"
        return _waits(offer, moment, "inhibited", f"the application {why}", soon)
    if moment.requested or moment.urgent:
        return None
    if moment.postponed_until is not None:
        if moment.now >= moment.postponed_until:
            return None  # "tonight" has come
        return _waits(
            offer, moment, "postponed", "it was postponed", moment.postponed_until
        )
    if moment.mode == ON_REQUEST:
        return _waits(
            offer,
            moment,
            "waits_for_request",
            "it is activated when the application is started anew, or asks for it",
            moment.deadline,
        )
    if moment.mode == AT_EXIT and moment.in_use:
        why = "it is activated when the application has ended"
        return _waits(offer, moment, "waits_for_exit", why, soon)
    if moment.mode == WINDOW and moment.window and moment.now < moment.window[0]:
        return _waits(
            offer,
            moment,
            "waits_for_window",
            "it is activated in the maintenance window",
            moment.window[0],
        )
    return None


def _waits(offer: Offer, moment: Moment, code: str, why: str, until: float) -> Wait:
    until = min(until, moment.deadline)
    latest = ""
    if math.isfinite(moment.deadline):
        rest = format_duration(moment.deadline - moment.now)
        latest = f", in {rest} at the latest"
    return Wait(
        code=code,
        reason=f"{offer.version} is ready: {why}{latest}",
        offer=offer,
        until=None if math.isinf(until) else until,
    )


def _look_again_at(moment: Moment) -> float:
    """Return when to look whether a process has ended: soon at first, then seldom."""
    waited_s = max(0.0, moment.now - moment.staged_at)
    return moment.now + min(_LATEST_S, max(_SOONEST_S, waited_s / 4))
