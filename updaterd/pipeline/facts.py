# SPDX-License-Identifier: Apache-2.0
"""What is true on this machine, as the planner wants to know it; what it decided.

What is written here is what `updaterd status` and the daemon read: the decision and
its reason, the time of the next attempt, and the marks that no later answer of the
repository may go behind.
"""

import math
import sqlite3
from dataclasses import replace
from pathlib import Path

from updaterd import locks
from updaterd.core import codes, planner, schedule, words
from updaterd.core.backoff import Backoff
from updaterd.core.channel import ChannelPointer
from updaterd.core.lifecycle import TOUCHED, State
from updaterd.core.planner import Act, Block, Decision, Facts, Wait
from updaterd.core.recovery import retry_after_s
from updaterd.core.settings import Product
from updaterd.errors import NotUnderstoodError, TransientError, UpdaterError
from updaterd.install import stage
from updaterd.pipeline.services import Outcome, Request, Services
from updaterd.store.journal import Failed, RoleSeen
from updaterd.trust.client import View

_RETRY = Backoff(base=30.0, cap=3600.0)
_TYPED = "manual"
_BROKEN_RETRY_S = 3600.0
"""A person may have put it right; looking again is cheap."""


def gather(product: Product, services: Services, request: Request, view: View) -> Facts:
    """Return what the planner wants to know, as of now."""
    journal, now = services.journal, services.clock()
    known = journal.product(product.name)
    at_hand = view.words(product.name, product.channel)
    standing = words.standing(
        journal.words(product.name, repository=journal.repository(view.lineage)),
        view.speakers,
        root_version=view.root_version,
    )
    newer = words.step_back(at_hand, standing) or (at_hand[-1], at_hand[-1])
    installed = journal.installed(product.name)
    disk = stage.look(Path(product.root))
    window = None
    if services.schedule.window is not None:
        windows = schedule.parse_window(services.schedule.window)
        window = schedule.nearest(windows, now, services.zone)
    return Facts(
        now=now,
        machine_id=services.machine_id,
        updater=services.updater,
        platform=services.platform,
        installed_version=installed.version if installed else None,
        installed_seq=installed.seq if installed else None,
        seq_floor=words.lowest(standing),
        speaker=newer[0].role,
        authority=newer[0].place,
        seen_authority=newer[1].place,
        blocked={
            failed.version: _block(failed, typed=request.trigger == _TYPED)
            for failed in journal.failed(product.name).values()
        },
        on_disk=disk.whole,
        hold_until=known.hold_until,
        hold_reason=known.hold_reason,
        window=window,
        first_seen_at=known.first_seen_at,
        pending_since=known.pending_since,
        max_deferral_s=services.schedule.max_deferral_s,
        forced=request.forced,
        retry_blocked=request.retry_blocked,
    )


def without_a_view(product: Product, services: Services) -> Facts:
    """Return what is true here when the channel cannot be read."""
    known = services.journal.product(product.name)
    installed = services.journal.installed(product.name)
    return Facts(
        now=services.clock(),
        machine_id=services.machine_id,
        updater=services.updater,
        platform=services.platform,
        installed_version=installed.version if installed else None,
        pending_since=known.pending_since,
    )


def passing_over(
    view: View, pointer: ChannelPointer, known: Facts
) -> tuple[ChannelPointer, Facts]:
    """Return pointer and facts as they are once what is not for us is passed over.

    That is a release that is not for this updaterd: it may do for a newer one, so
    nothing is remembered about it. And one that was made for other platforms only,
    where the pointer does not say so: what is below it counts.
    """
    name = pointer.product
    while True:
        decision = planner.decide(pointer, known)
        if not isinstance(decision, Act):
            return pointer, known
        target = decision.target
        try:
            if target.platforms is None:
                made_for = view.platforms(name, target.version, known.platform)
                if made_for and known.platform not in made_for:
                    pointer = planner.restricted(pointer, target.version, made_for)
                    continue
            view.manifest(name, target.version, known.platform)
        except NotUnderstoodError as error:
            passed = Block(seq=target.seq, reason=error.what, code=error.code)
            known = replace(known, blocked={**known.blocked, target.version: passed})
        except UpdaterError:
            return pointer, known  # asked for again, by who has an answer to that
        else:
            return pointer, known


def _block(failed: Failed, *, typed: bool) -> Block:
    """Return until when a release that failed here is left alone.

    Args:
        failed: as the journal has it.
        typed: a person asks, and need not have said `--retry` when the time is over.
    """
    announced = failed.announced_at is not None
    known = failed.code, failed.failures
    return Block(
        seq=failed.seq,
        reason=failed.reason,
        until=failed.blocked_at + retry_after_s(*known, asked=typed or announced),
        retried_at=failed.blocked_at + retry_after_s(*known, asked=announced),
    )


def first_seen(
    product: Product, services: Services, decision: Decision, *, now: float
) -> float | None:
    """Return when this machine first saw the release that is decided about."""
    if decision.offer is None:
        return None
    known = services.journal.product(product.name)
    if known.target_seq == decision.offer.seq and known.first_seen_at is not None:
        # a clock that was set back must not defer the release for longer
        return min(known.first_seen_at, now)
    return now


def note_decision(
    product: Product,
    services: Services,
    decision: Decision,
    known: Facts,
    heard: int,
) -> None:
    """Journal what was decided, why, and when to look again.

    Args:
        product: the application.
        services: the machine.
        decision: what was decided.
        known: what it was decided from.
        heard: the newest row of the inbox when the look began.
    """
    until = decision.until if isinstance(decision, Wait) else None
    offer = decision.offer
    services.journal.remember(
        product.name,
        target_version=offer.version if offer else None,
        target_seq=offer.seq if offer else None,
        decision=decision.code,
        decision_reason=decision.reason,
        checked_at=services.clock(),
        first_seen_at=known.first_seen_at,
        pending_since=known.pending_since,
        looked_up_to=heard,
        next_attempt_at=None if until is None or math.isinf(until) else until,
    )
    if not isinstance(decision, Act):
        services.journal.remember(
            product.name, failures=0, last_error="", last_error_code=""
        )


def note_end(product: Product, services: Services, outcome: Outcome) -> None:
    """Journal how things stand after a deployment that came to its end."""
    installed = outcome.result == "installed"
    if not installed and not codes.blocks(outcome.code):
        services.journal.remember(
            product.name,
            decision=outcome.code,
            decision_reason=f"{outcome.from_version} could not be activated here, "
            f"through no fault of its own: {outcome.reason}",
        )
        error = TransientError(outcome.reason, code=outcome.code)
        heard = services.journal.product(product.name).looked_up_to
        note_failure(product, services, error, heard)
        return
    failed = services.journal.failed(product.name).get(outcome.from_version or "")
    until = None
    if not installed and failed is not None:
        until = failed.blocked_at + retry_after_s(
            failed.code, failed.failures, asked=False
        )
    services.journal.remember(
        product.name,
        decision="current" if installed else "blocked",
        decision_reason=f"{outcome.version} is installed"
        if installed
        else f"{outcome.from_version} is blocked here ({outcome.reason})",
        pending_since=None,
        failures=0,
        next_attempt_at=None if until is None or math.isinf(until) else until,
        last_error="",
        last_error_code="",
    )


def accept(product: Product, services: Services, view: View) -> None:
    """Keep, apart from the cache, what no later answer may go behind.

    And forget what was said by keys that may not speak any more.
    """
    journal, name = services.journal, product.name
    journal.hear(
        name,
        view.words(name, product.channel),
        view.speakers,
        repository=journal.follow(name, view.lineage),
        root_version=view.root_version,
    )
    journal.set_roles(
        RoleSeen(role.name, role.version, role.expires.timestamp())
        for role in view.roles
    )


def supersede(product: Product, services: Services, decision: Decision) -> None:
    """End what was begun for a release that is not wanted now.

    One that only waits (hold, window, splay) stays open: it will be resumed.
    """
    open_ = services.journal.open_deployment(product.name)
    if open_ is None or open_.state in TOUCHED:
        return
    offer = decision.offer if isinstance(decision, Wait) else None
    if offer is not None and offer.seq == open_.seq:
        return
    services.journal.move(
        open_.id, State.SKIPPED, services.note(decision.code, decision.reason)
    )


def note_failure(
    product: Product, services: Services, error: UpdaterError, heard: int
) -> None:
    """Journal an error and when to try again; a journal that is full cannot.

    Args:
        product: the application.
        services: the machine.
        error: what the run ended with.
        heard: the newest row of the inbox when the run began.
    """
    if isinstance(error, locks.BusyError):
        return
    now = services.clock()
    try:
        failures = services.journal.failures(product.name) + 1
        delay = _BROKEN_RETRY_S
        if isinstance(error, TransientError):
            delay = _RETRY.delay(failures, draw=services.draw())
        services.journal.note_failure(
            product.name,
            code=error.code,
            reason=str(error),
            next_attempt_at=now + delay,
            now=now,
            looked_up_to=heard,
        )
    except sqlite3.Error as second:
        services.teller.say(f"the journal cannot be written: {second}")
