# SPDX-License-Identifier: Apache-2.0
"""What a run decided and how it ended, journalled for `updaterd status` and the daemon.

The decision and its reason, the time of the next attempt, and the marks that no later
answer of the repository may go behind.
"""

import math
import sqlite3

from updaterd.core import codes
from updaterd.core.backoff import Backoff
from updaterd.core.decision import Act, Decision, Facts, Wait
from updaterd.core.lifecycle import TOUCHED, State
from updaterd.core.recovery import retry_after_s
from updaterd.errors import TransientError, UpdaterError
from updaterd.pipeline.run import Outcome, Run
from updaterd.store.journal import RoleSeen
from updaterd.system import locks
from updaterd.trust.client import View

_RETRY = Backoff(base=30.0, cap=3600.0)
_BROKEN_RETRY_S = 3600.0
"""A person may have put it right; looking again is cheap."""


def write_decision(
    run: Run,
    decision: Decision,
    known: Facts,
    heard: int,
) -> None:
    """Journal what was decided, why, and when to look again.

    Args:
        run: one product on this machine.
        decision: what was decided.
        known: what it was decided from.
        heard: the newest row of the inbox when the look began.
    """
    until = decision.until if isinstance(decision, Wait) else None
    offer = decision.offer
    run.journal.remember(
        run.name,
        target_version=offer.version if offer else None,
        target_seq=offer.seq if offer else None,
        decision=decision.code,
        decision_reason=decision.reason,
        checked_at=run.services.clock(),
        first_seen_at=known.first_seen_at,
        pending_since=known.pending_since,
        looked_up_to=heard,
        next_attempt_at=None if until is None or math.isinf(until) else until,
    )
    if known.pending_since is None:  # what was postponed is not wanted any more
        run.journal.remember(run.name, postponed_until=None)
    if not isinstance(decision, Act):
        run.journal.remember(run.name, failures=0, last_error="", last_error_code="")


def write_end(run: Run, outcome: Outcome) -> None:
    """Journal how things stand after a deployment that came to its end."""
    installed = outcome.result == "installed"
    if not installed and not codes.blocks(outcome.code):
        run.journal.remember(
            run.name,
            decision=outcome.code,
            decision_reason=f"{outcome.from_version} could not be activated here, "
            f"through no fault of its own: {outcome.reason}",
        )
        error = TransientError(outcome.reason, code=outcome.code)
        heard = run.journal.product(run.name).looked_up_to
        write_failure(run, error, heard)
        return
    if installed:
        run.journal.remember(run.name, apply_seq=None)
    failed = run.journal.failed(run.name).get(outcome.from_version or "")
    until = None
    if not installed and failed is not None:
        until = failed.blocked_at + retry_after_s(
            failed.code, failed.failures, is_wanted=False
        )
    run.journal.remember(
        run.name,
        decision="current" if installed else "blocked",
        decision_reason=f"{outcome.version} is installed"
        if installed
        else f"{outcome.from_version} is blocked here ({outcome.reason})",
        pending_since=None,
        postponed_until=None,
        failures=0,
        next_attempt_at=None if until is None or math.isinf(until) else until,
        last_error="",
        last_error_code="",
    )


def accept(run: Run, view: View) -> None:
    """Keep, apart from the cache, what no later answer may go behind.

    And forget what was said by keys that may not speak any more.
    """
    journal, name = run.journal, run.name
    journal.hear(
        name,
        view.words(name, run.product.channel),
        view.speakers,
        repository=journal.follow(name, view.lineage),
        root_version=view.root_version,
    )
    journal.set_roles(
        RoleSeen(role.name, role.version, role.expires.timestamp())
        for role in view.roles
    )


def keep(run: Run, version: str) -> None:
    """Hold a product at the release that a person named.

    Else the next look would bring what the channel offers. A hold that stands stays.

    Power cut: the hold is there or not; with it, the next run goes on to the release.
    """
    if run.services.clock() >= (run.journal.product(run.name).hold_until or 0.0):
        run.journal.hold(run.name, reason=_reason_to_hold(version), at=version)


def let_go(run: Run) -> bool:
    """End a hold that `keep` set, at a release that will not do; tell whether it did.

    It failed here, or its publisher took it back. What a person holds stays held.

    Power cut: the hold is there or not; the next look ends it.
    """
    known = run.journal.product(run.name)
    if not known.hold_at or known.hold_reason != _reason_to_hold(known.hold_at):
        return False
    run.journal.unhold(run.name)
    return True


def _reason_to_hold(version: str) -> str:
    return f"update --to {version}"


def supersede(run: Run, decision: Decision) -> None:
    """End what was begun for a release that is not wanted now.

    One that only waits (hold, window, splay) stays open: it will be resumed.
    """
    open_ = run.journal.open_deployment(run.name)
    if open_ is None or open_.state in TOUCHED:
        return
    offer = decision.offer if isinstance(decision, Wait) else None
    if offer is not None and offer.seq == open_.seq:
        return
    run.journal.move(open_.id, State.SKIPPED, run.note(decision.code, decision.reason))


def write_failure(run: Run, error: UpdaterError, heard: int) -> None:
    """Journal an error and when to try again; a journal that is full cannot.

    Args:
        run: one product on this machine.
        error: what the run ended with.
        heard: the newest row of the inbox when the run began.
    """
    if isinstance(error, locks.BusyError):
        return
    now = run.services.clock()
    try:
        failures = run.journal.failures(run.name) + 1
        delay = _BROKEN_RETRY_S
        if isinstance(error, TransientError):
            delay = _RETRY.delay(failures, draw=run.services.draw())
        run.journal.note_failure(
            run.name,
            code=error.code,
            reason=str(error),
            next_attempt_at=now + delay,
            now=now,
            looked_up_to=heard,
        )
    except sqlite3.Error as second:
        run.say(f"the journal cannot be written: {second}")
