# SPDX-License-Identifier: Apache-2.0
"""A release that is staged: may it be activated now, or what does it wait for?

What is asked is asked of the journal, of a lock and of the kernel (`Moment`); the rule
is `core/activation.py`. While an application is at work the daemon has that looked at
again and again, so that is answered without asking the repository, for an hour.
"""

from updaterd.core import activation, deferral, windows
from updaterd.core.activation import Moment
from updaterd.core.channel import Offer, Rollout
from updaterd.core.decision import Wait
from updaterd.core.deferral import WAITS
from updaterd.core.lifecycle import State
from updaterd.install import prune
from updaterd.pipeline.decision.look import Look
from updaterd.pipeline.run import Request, Run
from updaterd.store.journal import Deployment
from updaterd.system import inhibitions

_LOCAL_S = 3600.0
_BY_ITSELF = frozenset({"poll", "boot"})


def wait(run: Run, request: Request, staged: Deployment, latest: Look) -> Wait | None:
    """Return what a staged release that is still wanted waits for, and journal it.

    Power cut: decided anew by the next run.
    """
    offer = latest.decision.offer
    if offer is None:
        return None
    known = latest.known
    since = known.now if known.pending_since is None else known.pending_since
    waiting = activation.wait(
        offer,
        _moment(
            run,
            staged,
            forced=request.forced,
            urgent=offer.urgency == "critical",
            pending_since=since,
        ),
    )
    if waiting is not None:
        note(run, waiting)
    return waiting


def still_waits(run: Run, request: Request) -> Wait | None:
    """Return what a staged release waits for, as far as this machine alone can tell.

    None: it does not, or it is time to ask the repository.

    Power cut: as `wait`.
    """
    facts, staged = run.journal.product(run.name), run.journal.open_deployment(run.name)
    asks = request.forced or request.dry or request.trigger not in _BY_ITSELF
    if asks or facts.decision not in WAITS:
        return None
    if staged is None or staged.state is not State.STAGED:
        return None
    now = run.services.clock()
    if not 0 <= now - staged.updated_at < _LOCAL_S:
        return None
    if run.journal.newest_event() > facts.looked_up_to:
        return None
    offer = Offer(version=staged.version, seq=staged.seq, rollout=Rollout())
    moment = _moment(
        run, staged, forced=False, urgent=False, pending_since=facts.pending_since
    )
    waiting = activation.wait(offer, moment)
    if waiting is None or waiting.code != facts.decision:
        return None
    note(run, waiting)
    return waiting


def note(run: Run, waiting: Wait) -> None:
    """Journal what the release waits for, and when to look again.

    Power cut: as `wait`.
    """
    run.journal.remember(
        run.name,
        decision=waiting.code,
        decision_reason=waiting.reason,
        checked_at=run.services.clock(),
        next_attempt_at=waiting.until,
        failures=0,
        last_error="",
        last_error_code="",
    )


def _moment(
    run: Run,
    staged: Deployment,
    *,
    forced: bool,
    urgent: bool,
    pending_since: float | None,
) -> Moment:
    services, facts = run.services, run.journal.product(run.name)
    installed = run.journal.installed(run.name)
    now = services.clock()
    mode = run.product.activate
    return Moment(
        now=now,
        mode=mode,
        is_first=installed is None,
        forced=forced,
        requested=facts.apply_seq == staged.seq,
        urgent=urgent,
        staged_at=_ready_since(run, staged, now),
        deadline=deferral.deadline(pending_since, services.schedule.max_deferral_s),
        postponed_until=facts.postponed_until,
        inhibited=inhibitions.asked_for(services.state, run.name),
        in_use=mode == deferral.AT_EXIT
        and installed is not None
        and _is_in_use(run, installed.version),
        window=_window(run, now) if mode == deferral.WINDOW else None,
    )


def _ready_since(run: Run, staged: Deployment, now: float) -> float:
    steps = run.journal.transitions(staged.id)
    return min((step.at for step in steps if step.state is State.STAGED), default=now)


def _is_in_use(run: Run, version: str) -> bool:
    """Tell whether a process runs from the release that would be left."""
    return prune.runs_from(run.root, version)


def _window(run: Run, now: float) -> windows.Span | None:
    text = run.services.schedule.window
    if text is None:
        return None
    return windows.nearest(windows.parse_window(text), now, run.services.zone)
