# SPDX-License-Identifier: Apache-2.0
"""The order of the stages: recover, trust, decide, acquire, decide again, activate.

`update` is the worker's whole work for one product. What it learns is journalled as
it goes, so `status` can say at any moment what was decided and why, and the daemon
finds there when to look again.
"""

from dataclasses import replace

from updaterd.core.decision import Act, Current, Decision, Facts, Wait
from updaterd.core.lifecycle import State
from updaterd.core.manifest import Manifest
from updaterd.core.settings import ITSELF, Product
from updaterd.errors import (
    BrokenError,
    RejectedError,
    UpdaterError,
)
from updaterd.install import activate, commands, hooks, stage
from updaterd.pipeline import recover, trial
from updaterd.pipeline.decision import look, notes, provenance, ready
from updaterd.pipeline.decision.look import Choice, Look
from updaterd.pipeline.machine import Services
from updaterd.pipeline.run import Outcome, Request, Run, at_work
from updaterd.pipeline.tree import cache
from updaterd.store.journal import Deployment

_RESULTS = {"held": "held", "blocked": "blocked"}


def update(product: Product, services: Services, request: Request) -> Outcome:
    """Bring one product to its target release.

    Raises:
        TransientError: not now; journalled with the time of the next attempt.
        RejectedError: the release will never do; journalled.
        BrokenError: a person must look; journalled.
        UpdaterError: one of these.

    Power cut: see the stages; the next run resumes or undoes what was begun.
    """
    run = Run(product, services)
    heard = run.journal.newest_event()
    settled: tuple[str, ...] = ()
    try:
        with at_work(run):
            if not request.dry:
                settled = recover.settle(run, anew=request.retry_blocked)
            commands.check(product, services.trusted)
            if not request.dry:
                settled += recover.reconsider(run)
            waiting = ready.still_waits(run, request)
            if waiting is not None:
                return _waits(run, waiting)
            outcome = _update(run, request)
    except UpdaterError as error:
        if not request.dry:
            notes.write_failure(run, error, heard)
        raise
    return replace(outcome, notes=(*settled, *outcome.notes))


def _update(run: Run, request: Request) -> Outcome:
    name = run.name
    remarks: tuple[str, ...] = ()
    while True:
        latest = look.take(run, request)
        decision, view = latest.decision, latest.view
        remarks = tuple(dict.fromkeys((*remarks, *latest.notes)))
        if not isinstance(decision, Act):
            if not request.dry:
                notes.supersede(run, decision)
            return _standing(run, decision, latest.known, remarks)
        choice = look.choose(latest, name)
        from updaterd.pipeline.tree import finish  # noqa: PLC0415 - as in _stage

        finish.check_allowed(run.product, choice.manifest)
        provenance.check(run, choice.manifest)
        run.say(f"{name}: {decision.reason}")
        held = _hold_notes(name, request, latest)
        if request.dry:
            return _explain(run, decision, choice.manifest, (*remarks, *held))
        if held:
            notes.keep(run, request.to)
        deployment = _open(run, decision, request)
        run.journal.claim(deployment.id, view.word(choice.manifest))
        outcome = _deploy(run, request, deployment, choice)
        if outcome is not None:
            if held and outcome.result == "rolled_back":
                notes.let_go(run)
                held = ()
            remarks = tuple(dict.fromkeys((*remarks, *held, *outcome.notes)))
            if decision.code != "stepping_stone" or not _may_go_on(run, outcome):
                return replace(outcome, notes=remarks)
            run.say(f"{name}: {outcome.version} is installed, and leads on")
        request = replace(request, pushed=None)


def _hold_notes(name: str, request: Request, latest: Look) -> tuple[str, ...]:
    """Return what to tell of the hold at a release that a person named, if any."""
    if not request.to or not latest.newer:
        return ()
    until = f"until `updaterd unhold {name}`"
    return (f"{name} stays at {request.to} {until}: its channel offers {latest.newer}",)


def _waits(run: Run, waiting: Wait) -> Outcome:
    """Return the outcome of a run whose release is ready, and waits on."""
    installed = run.journal.installed(run.name)
    return Outcome(
        product=run.name,
        result="pending",
        code=waiting.code,
        reason=waiting.reason,
        from_version=installed.version if installed else None,
        version=waiting.offer.version if waiting.offer else None,
        next_attempt_at=waiting.until,
    )


def _may_go_on(run: Run, outcome: Outcome) -> bool:
    """Tell whether what came first is in place, and the next step can follow at once.

    A new updaterd has to show itself first, and goes on by itself.
    """
    return outcome.result == "installed" and run.name != ITSELF


def _standing(
    run: Run, decision: Decision, known: Facts, remarks: tuple[str, ...]
) -> Outcome:
    """Return the outcome of a run that has nothing to do now."""
    match decision:
        case Current():
            result = "current"
        case Wait():
            result = _RESULTS.get(decision.code, "pending")
        case _:
            result = "refused"
    return Outcome(
        product=run.name,
        result=result,
        code=decision.code,
        reason=decision.reason,
        from_version=known.installed_version,
        version=decision.offer.version if decision.offer else None,
        next_attempt_at=decision.until if isinstance(decision, Wait) else None,
        notes=remarks,
    )


def _explain(
    run: Run,
    decision: Act,
    manifest: Manifest,
    remarks: tuple[str, ...],
) -> Outcome:
    from updaterd.pipeline.tree import acquire  # noqa: PLC0415 - as in _stage
    from updaterd.pipeline.tree.job import Job  # noqa: PLC0415 - as in _stage

    bases = acquire.base_trees(run)
    job = Job(run=run, manifest=manifest, raw=bytes, ident=0, bases=bases)
    is_here = manifest.tree in job.have.values()
    route = None if is_here else acquire.choose(job)
    installed = run.journal.installed(run.name)
    return Outcome(
        product=run.name,
        result="pending",
        code=decision.code,
        reason=decision.reason,
        from_version=installed.version if installed else None,
        version=manifest.version,
        path=route.reason if route else "its tree is on disk already: no download",
        alternatives=route.alternatives if route else (),
        bytes_fetched=route.bytes if route else 0,
        bytes_full=manifest.full.length,
        notes=remarks,
    )


def _open(run: Run, decision: Act, request: Request) -> Deployment:
    """Return the deployment to go on with, or a new one."""
    journal, target = run.journal, decision.target
    open_ = journal.open_deployment(run.name)
    if open_ is not None:
        if (open_.version, open_.seq) == (target.version, target.seq):
            return open_
        reason = f"{target.version} came before {open_.version} was done"
        journal.move(open_.id, State.SKIPPED, run.note("superseded", reason))
    ident = journal.begin(
        run.name,
        run.product.channel,
        target,
        request.trigger,
        run.note(decision.code, decision.reason),
    )
    return journal.deployment(ident)


def _deploy(
    run: Run,
    request: Request,
    deployment: Deployment,
    choice: Choice,
) -> Outcome | None:
    """Take a deployment from where it stands to its end.

    Returns:
        How it ended; None when the channel wants another release by now.

    Raises:
        RejectedError: the release will never do; the deployment ended.
        BrokenError: a person must look; the deployment ended.
        TransientError: not now; the deployment stays open, to be resumed.
    """
    from updaterd.pipeline.tree import surroundings  # noqa: PLC0415 - as in _stage

    manifest = choice.manifest
    try:
        reason = _stage(run, request, deployment, choice)
        choice.signed.release()
        trial.examine(run, run.journal.deployment(deployment.id))
    except surroundings.WaitingError as waiting:
        ready.note(run, waiting.wait)
        return _waits(run, waiting.wait)
    except (RejectedError, BrokenError) as error:
        rejected = isinstance(error, RejectedError)
        run.journal.move(
            deployment.id,
            State.REJECTED if rejected else State.FAILED,
            run.note(error.code, str(error)),
        )
        if rejected:
            note = run.note(error.code, error.cause)
            run.journal.block(run.name, manifest, note)
        raise
    staged = run.journal.deployment(deployment.id)
    latest = _look_again(run, request, staged, choice)
    if not isinstance(latest.decision, Act):
        notes.supersede(run, latest.decision)
        outcome = _standing(run, latest.decision, latest.known, ())
    elif look.is_chosen(latest, choice):
        outcome = trial.perform(run, staged)
    else:
        return None
    return replace(
        outcome,
        path=reason,
        bytes_fetched=staged.bytes_fetched,
        bytes_full=manifest.full.length,
    )


def _look_again(
    run: Run,
    request: Request,
    staged: Deployment,
    choice: Choice,
) -> Look:
    """Decide once more, now that only activation is left, and again after a hook.

    Raises:
        TransientError: the repository cannot be asked, or a hook said no; the
            deployment stays STAGED.
        RejectedError: nobody vouches for the release any more; it stays STAGED.
    """
    request_alone = replace(request, pushed=None)
    latest = look.take(run, request_alone, staged=choice)
    if not look.is_chosen(latest, choice):
        return latest
    waiting = ready.wait(run, request, staged, latest)
    if waiting is not None:
        return replace(latest, decision=waiting)
    if trial.prepare(run, staged):  # a hook may take its time
        latest = look.take(run, request_alone, staged=choice)
    if look.is_chosen(latest, choice):
        run.journal.claim(staged.id, latest.view.word(choice.manifest))
    return latest


def _stage(run: Run, request: Request, deployment: Deployment, choice: Choice) -> str:
    """Bring the release to STAGED; return how, for a person.

    Raises:
        RejectedError: no bundle can be used.
        WaitingError: it must not be downloaded now; the deployment stays open.
        _label_in_use: the running release is in the way.
    """
    # most looks find nothing to stage, and imports are most of what they cost
    from updaterd.pipeline.tree import acquire, surroundings  # noqa: PLC0415 - so
    from updaterd.pipeline.tree.job import Job  # noqa: PLC0415 - as above

    manifest, raw = choice.manifest, choice.signed.whole
    journal, ident, root = run.journal, deployment.id, run.root
    journal.move(
        ident,
        State.PLANNED,
        run.note(reason=f"manifest of {manifest.version} read"),
        bytes_full=manifest.full.length,
    )
    if acquire.is_whole(root, manifest):
        stage.clear_leftovers(root)
        reason = "its tree is on disk already"
        if not deployment.bytes_fetched:  # by a run that was cut short
            reason += ": nothing downloaded"
        sha256 = run.keep(manifest.version, raw())
        journal.stage(ident, sha256, manifest.tree, run.note("on_disk", reason))
        cache.clear(run)  # a run died before it did
        return reason
    if stage.look(root).running == manifest.version:
        raise _label_in_use(run, manifest)
    bases = acquire.base_trees(run)
    job = Job(
        run=run,
        manifest=manifest,
        raw=raw,
        lend=choice.signed.lend,
        ident=ident,
        bases=bases,
        fetched=deployment.bytes_fetched,
        counted=None if deployment.state is State.QUEUED else deployment.bytes_cached,
    )
    acquire.prepare(job)
    surroundings.check(job, choice.offer, forced=request.forced)
    env = hooks.environment(
        run.product,
        version=manifest.version,
        from_version=deployment.from_version,
        trigger=deployment.trigger,
    )
    run.hook("pre_stage", env)
    same_tree = manifest.tree in job.have.values()  # under another label
    if same_tree or stage.look(root).running == activate.UNMANAGED:
        how = acquire.reassemble(job)
        if how is not None:
            return how
    return acquire.acquire(job).reason


def _label_in_use(run: Run, manifest: Manifest) -> RejectedError:
    """Return why a release cannot be staged under the label of what runs."""
    installed = run.journal.installed(run.name)
    if installed is not None and installed.tree == manifest.tree:
        remedy = f"run `updaterd verify {run.name} --repair`"
    else:
        remedy = "publish it under a version of its own: a label names one release"
    return RejectedError(
        f"{stage.releases(run.root) / manifest.version} is the running release, and "
        f"differs from what was signed as {manifest.version}",
        means="it cannot be replaced while it is the running release",
        do=remedy,
        code="label_in_use",
    )
