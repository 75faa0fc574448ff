# SPDX-License-Identifier: Apache-2.0
"""May so much be downloaded now: not on a metered line, not on battery, if so wanted.

For at most `max_deferral`, as everything that keeps a release; critical releases, first
installations and `--now` wait for neither.
"""

from updaterd.core import deferral
from updaterd.core.channel import Offer
from updaterd.core.decision import Wait
from updaterd.core.units import format_bytes
from updaterd.pipeline.tree import acquire, cache
from updaterd.pipeline.tree.job import Job

_HOLD = "hold"
_AGAIN_S = 900.0


class WaitingError(Exception):
    """Not an error: what a release waits for before it is downloaded."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.reason)
        self.wait = wait


def check(job: Job, offer: Offer, *, forced: bool) -> None:
    """Check that a release may be downloaded now.

    Raises:
        WaitingError: it has to wait.
    """
    run = job.run
    services, facts = run.services, run.journal.product(run.name)
    is_first = run.journal.installed(run.name) is None
    if forced or is_first or offer.urgency == "critical":
        return
    now, longest_s = services.clock(), services.schedule.max_deferral_s
    deadline = deferral.deadline(facts.pending_since, longest_s)
    if now >= deadline:
        return
    length = acquire.choose(job).bytes - cache.held(run, job.manifest)
    code = why = ""
    if services.schedule.on_battery == _HOLD and services.on_battery():
        code, why = "on_battery", "the machine runs on battery"
    elif (
        services.download.metered == _HOLD
        and length > services.download.metered_max
        and services.metered()
    ):
        size = format_bytes(length)
        code, why = "metered", f"the network is metered, and {size} are to come"
    if code:
        until = min(now + _AGAIN_S, deadline)
        reason = f"{offer.version} waits: {why}"
        raise WaitingError(Wait(code=code, reason=reason, offer=offer, until=until))
