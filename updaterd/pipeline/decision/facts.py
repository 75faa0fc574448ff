# SPDX-License-Identifier: Apache-2.0
"""What is true on this machine, as the planner wants to know it."""

from dataclasses import replace

from updaterd.core import deferral, fitting, pacing, planner, windows, words
from updaterd.core.channel import ChannelPointer, Offer, Rollout
from updaterd.core.decision import Act, Block, Decision, Facts, Wait
from updaterd.core.recovery import retry_after_s
from updaterd.errors import NotUnderstoodError, UpdaterError
from updaterd.install import stage
from updaterd.pipeline.run import Request, Run
from updaterd.store.journal import Failed
from updaterd.trust.client import View

_TYPED = "manual"


def gather(run: Run, request: Request, view: View) -> Facts:
    """Return what the planner wants to know, as of now."""
    journal, now = run.journal, run.services.clock()
    known = journal.product(run.name)
    at_hand = view.words(run.name, run.product.channel)
    standing = words.standing(
        journal.words(run.name, repository=journal.repository(view.lineage)),
        view.speakers,
        root_version=view.root_version,
    )
    newer = words.step_back(at_hand, standing) or (at_hand[-1], at_hand[-1])
    installed = journal.installed(run.name)
    disk = stage.look(run.root)
    window = None
    # where only activation keeps to it, what comes before need not: pipeline/ready
    in_window = run.product.activate != deferral.WINDOW
    if run.services.schedule.window is not None and in_window:
        opened = windows.parse_window(run.services.schedule.window)
        window = windows.nearest(opened, now, run.services.zone)
    return Facts(
        now=now,
        machine_id=run.services.machine_id,
        updater=run.services.updater,
        platform=run.services.platform,
        installed_version=installed.version if installed else None,
        installed_seq=installed.seq if installed else None,
        seq_floor=words.lowest(standing),
        speaker=newer[0].role,
        authority=newer[0].place,
        seen_authority=newer[1].place,
        blocked={
            failed.version: _block(failed, typed=request.trigger == _TYPED)
            for failed in journal.failed(run.name).values()
        },
        on_disk=disk.whole,
        hold_until=known.hold_until,
        hold_reason=known.hold_reason,
        hold_at=known.hold_at if now < (known.hold_until or 0.0) else "",
        window=window,
        first_seen_at=_not_after(now, known.first_seen_at),
        pending_since=known.pending_since,
        max_deferral_s=run.services.schedule.max_deferral_s,
        tags=run.services.tags,
        forced=request.forced,
        retry_blocked=request.retry_blocked,
    )


def _not_after(now: float, moment: float | None) -> float | None:
    """Return a moment, but no later one than now: a clock may have been set back."""
    return None if moment is None else min(now, moment)


def without_a_view(run: Run) -> Facts:
    """Return what is true here when the channel cannot be read."""
    known = run.journal.product(run.name)
    installed = run.journal.installed(run.name)
    return Facts(
        now=run.services.clock(),
        machine_id=run.services.machine_id,
        updater=run.services.updater,
        platform=run.services.platform,
        installed_version=installed.version if installed else None,
        pending_since=known.pending_since,
    )


def passing_over(
    view: View, pointer: ChannelPointer, known: Facts
) -> tuple[ChannelPointer, Facts]:
    """Return pointer and facts as they are once what is not for us is passed over.

    That is a release that is not for this updaterd: it may do for a newer one, so
    nothing is remembered about it. And one that was made for other platforms only,
    where the pointer does not say so: what is below it counts. What a release can be
    installed over is what its manifest says, where the pointer says less, and its pace
    is always what its manifest says.
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
                    pointer = fitting.restricted(pointer, target.version, made_for)
                    continue
            manifest = view.manifest(name, target.version, known.platform)
            if manifest.from_seq_min > target.from_seq_min:
                least = manifest.from_seq_min
                pointer = fitting.limited(pointer, target.version, least)
                continue
            if manifest.pace != pacing.pace_of(target, known):
                paces = {**known.paces, target.version: manifest.pace}
                known = replace(known, paces=paces)
                continue
        except NotUnderstoodError as error:
            passed = Block(seq=target.seq, reason=error.cause, code=error.code)
            known = replace(known, blocked={**known.blocked, target.version: passed})
        except UpdaterError:
            return pointer, known  # asked for again, by who has an answer to that
        else:
            return pointer, known


def named(view: View, pointer: ChannelPointer, known: Facts) -> Offer | Decision:
    """Return the release that a person named, as its manifest says it; or why not.

    Raises:
        TransientError: the repository cannot be asked or believed now.
        MalformedError: what it signed makes no sense.
    """
    name, version = pointer.product, known.named
    if known.platform not in view.platforms(name, version, known.platform):
        return planner.no_such_name(name, known)
    try:
        manifest = view.manifest(name, version, known.platform)
    except NotUnderstoodError as error:
        return Wait(code=error.code, reason=error.cause)
    return Offer(
        version=version,
        seq=manifest.seq,
        rollout=Rollout(),
        platforms=(known.platform,),
        from_seq_min=manifest.from_seq_min,
    )


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
        until=failed.blocked_at + retry_after_s(*known, is_wanted=typed or announced),
        retried_at=failed.blocked_at + retry_after_s(*known, is_wanted=announced),
    )


def first_seen(run: Run, decision: Decision, *, now: float) -> float | None:
    """Return when this machine first saw the release that is decided about."""
    if decision.offer is None:
        return None
    known = run.journal.product(run.name)
    if known.target_seq == decision.offer.seq and known.first_seen_at is not None:
        # a clock that was set back must not defer the release for longer
        return min(known.first_seen_at, now)
    return now
