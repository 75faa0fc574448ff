# SPDX-License-Identifier: Apache-2.0
"""The order of the stages: recover, trust, decide, acquire, decide again, activate.

`update` is the worker's whole work for one product. What it learns is journalled as
it goes, so `status` can say at any moment what was decided and why, and the daemon
finds there when to look again.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from updaterd import locks, roots
from updaterd.core.lifecycle import State
from updaterd.core.manifest import Manifest
from updaterd.core.planner import Act, Current, Decision, Facts, Wait
from updaterd.core.settings import Product
from updaterd.errors import (
    BrokenError,
    RejectedError,
    TransientError,
    UpdaterError,
)
from updaterd.install import activate, commands, hooks, stage
from updaterd.pipeline import (
    acquire,
    cache,
    facts,
    finish,
    look,
    restore,
    resume,
    rollback,
    trial,
)
from updaterd.pipeline.build import Job
from updaterd.pipeline.look import Look, Wanted
from updaterd.pipeline.services import Outcome, Request, Services
from updaterd.store.journal import Deployment

__all__ = ["Outcome", "Request", "recover", "roll_back", "update", "verify"]

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
    heard = services.journal.newest_event()
    try:
        with _at_work(product, services):
            told: tuple[str, ...] = ()
            if not request.dry:
                anew = request.retry_blocked
                told = resume.recover(product, services, anew=anew)
            commands.check(product, services.trusted)
            told += () if request.dry else resume.reconsider(product, services)
            outcome = _update(product, services, request)
    except UpdaterError as error:
        if not request.dry:
            facts.note_failure(product, services, error, heard)
        raise
    return replace(outcome, notes=(*told, *outcome.notes))


def recover(product: Product, services: Services) -> tuple[str, ...]:
    """Finish or undo what a dead run left, and nothing else.

    Raises:
        BrokenError: a person must look.
        TransientError: the disk refused.
    """
    with _at_work(product, services):
        return resume.recover(product, services)


def roll_back(
    product: Product, services: Services, *, to: str | None = None
) -> Outcome:
    """Return to an earlier release, offline; see `rollback.roll_back`.

    Raises:
        BrokenError: there is nothing to return to, or a person must look.
        RejectedError: the earlier release is below the signed floor.
        TransientError: a hook said no, or the disk refused.
    """
    with _at_work(product, services):
        before = services.journal.open_deployment(product.name)
        running = stage.look(Path(product.root)).running
        told = resume.recover(product, services)
        outcome = rollback.carried_out(
            product, services, before=before, running=running, to=to
        ) or rollback.roll_back(product, services, to=to)
        return replace(outcome, notes=(*told, *outcome.notes))


def verify(product: Product, services: Services, *, repair: bool) -> restore.Checked:
    """Compare the installed tree with its listing; see `restore.verify`.

    Raises:
        BrokenError: nothing is installed, or a person must look.
        RejectedError: the repository serves other bytes than were signed.
        TransientError: what is missing cannot be fetched now, or the disk refused.
    """
    with _at_work(product, services):
        notes = restore.relink(product, services) if repair else ()
        notes += resume.recover(product, services)
        found = restore.verify(product, services, repair=repair)
        return replace(found, notes=(*notes, *found.notes))


@contextmanager
def _at_work(product: Product, services: Services) -> Iterator[None]:
    """Hold the product; give what the disk and the journal refuse a name.

    Raises:
        TransientError: no room, or another process is at work on the product.
        BrokenError: nothing can be written there, or others may write there too.
        stage.failure: one of these.
    """
    with locks.hold(services.lock(product), what=f"product {product.name}"):
        try:
            roots.close(product)
            roots.check(product)
            yield
        except OSError as error:
            raise stage.failure(error, f"{product.name}: the disk refused") from error
        except sqlite3.OperationalError as error:
            raise TransientError(
                f"{product.name}: the journal cannot be written: {error}",
                means="nothing goes on without it; the next run resumes",
                do="free disk space in the state directory, or look at its rights",
                code="journal_refused",
            ) from error


def _update(product: Product, services: Services, request: Request) -> Outcome:
    name = product.name
    notes: tuple[str, ...] = ()
    while True:
        found = look.take(product, services, request)
        decision, view = found.decision, found.view
        notes = (*notes, *(note for note in found.notes if note not in notes))
        if not isinstance(decision, Act):
            if not request.dry:
                facts.supersede(product, services, decision)
            return _standing(product, decision, found.known, notes)
        wanted = look.wanted(found, name)
        finish.check_allowed(product, wanted.manifest)
        services.teller.say(f"{name}: {decision.reason}")
        if request.dry:
            return _explain(product, services, decision, wanted.manifest, notes)
        deployment = _open(product, services, decision, request)
        services.journal.claim(deployment.id, view.word(wanted.manifest))
        outcome = _deploy(product, services, request, deployment, wanted)
        if outcome is not None:
            return replace(outcome, notes=(*notes, *outcome.notes))
        request = replace(request, pushed=None)


def _standing(
    product: Product, decision: Decision, known: Facts, notes: tuple[str, ...]
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
        product=product.name,
        result=result,
        code=decision.code,
        reason=decision.reason,
        from_version=known.installed_version,
        version=decision.offer.version if decision.offer else None,
        next_attempt_at=decision.until if isinstance(decision, Wait) else None,
        notes=notes,
    )


def _explain(
    product: Product,
    services: Services,
    decision: Act,
    manifest: Manifest,
    notes: tuple[str, ...],
) -> Outcome:
    bases = acquire.base_trees(product, services)
    job = Job(product=product, manifest=manifest, raw=bytes, ident=0, bases=bases)
    here = manifest.tree in job.have.values()
    route = None if here else acquire.choose(job)
    installed = services.journal.installed(product.name)
    return Outcome(
        product=product.name,
        result="pending",
        code=decision.code,
        reason=decision.reason,
        from_version=installed.version if installed else None,
        version=manifest.version,
        path=route.reason if route else "its tree is on disk already: no download",
        alternatives=route.alternatives if route else (),
        bytes_fetched=route.bytes if route else 0,
        bytes_full=manifest.full.length,
        notes=notes,
    )


def _open(
    product: Product, services: Services, decision: Act, request: Request
) -> Deployment:
    """Return the deployment to go on with, or a new one."""
    journal, target = services.journal, decision.target
    open_ = journal.open_deployment(product.name)
    if open_ is not None:
        if (open_.version, open_.seq) == (target.version, target.seq):
            return open_
        reason = f"{target.version} came before {open_.version} was done"
        journal.move(open_.id, State.SKIPPED, services.note("superseded", reason))
    ident = journal.begin(
        product.name,
        product.channel,
        target,
        request.trigger,
        services.note(decision.code, decision.reason),
    )
    return journal.deployment(ident)


def _deploy(
    product: Product,
    services: Services,
    request: Request,
    deployment: Deployment,
    wanted: Wanted,
) -> Outcome | None:
    """Take a deployment from where it stands to its end.

    Returns:
        How it ended; None when the channel wants another release by now.

    Raises:
        RejectedError: the release will never do; the deployment ended.
        BrokenError: a person must look; the deployment ended.
        TransientError: not now; the deployment stays open, to be resumed.
    """
    manifest = wanted.manifest
    try:
        reason = _stage(product, services, deployment, manifest, wanted.signed.whole)
        trial.examine(product, services.journal.deployment(deployment.id), services)
    except (RejectedError, BrokenError) as error:
        rejected = isinstance(error, RejectedError)
        services.journal.move(
            deployment.id,
            State.REJECTED if rejected else State.FAILED,
            services.note(error.code, str(error)),
        )
        if rejected:
            note = services.note(error.code, error.what)
            services.journal.block(product.name, manifest, note)
        raise
    staged = services.journal.deployment(deployment.id)
    found = _look_again(product, services, request, staged, wanted)
    if not isinstance(found.decision, Act):
        facts.supersede(product, services, found.decision)
        outcome = _standing(product, found.decision, found.known, ())
    elif look.is_wanted(found, wanted):
        outcome = trial.perform(product, staged, services)
    else:
        return None
    return replace(
        outcome,
        path=reason,
        bytes_fetched=staged.bytes_fetched,
        bytes_full=manifest.full.length,
    )


def _look_again(
    product: Product,
    services: Services,
    request: Request,
    staged: Deployment,
    wanted: Wanted,
) -> Look:
    """Decide once more, now that only activation is left, and again after a hook.

    Raises:
        TransientError: the repository cannot be asked, or a hook said no; the
            deployment stays STAGED.
        RejectedError: nobody vouches for the release any more; it stays STAGED.
    """
    asked = replace(request, pushed=None)
    found = look.take(product, services, asked, staged=wanted)
    if not look.is_wanted(found, wanted):
        return found
    if trial.prepare(product, staged, services):  # a hook may take its time
        found = look.take(product, services, asked, staged=wanted)
    if look.is_wanted(found, wanted):
        services.journal.claim(staged.id, found.view.word(wanted.manifest))
    return found


def _stage(
    product: Product,
    services: Services,
    deployment: Deployment,
    manifest: Manifest,
    raw: Callable[[], bytes],
) -> str:
    """Bring the release to STAGED; return how, for a person.

    Raises:
        RejectedError: no bundle can be used, or the running release is in the way.
    """
    journal, ident, root = services.journal, deployment.id, Path(product.root)
    journal.move(
        ident,
        State.PLANNED,
        services.note(reason=f"manifest of {manifest.version} read"),
        bytes_full=manifest.full.length,
    )
    if acquire.is_whole(root, manifest):
        stage.clear_leftovers(root)
        reason = "its tree is on disk already"
        if not deployment.bytes_fetched:  # by a run that was cut short
            reason += ": nothing downloaded"
        journal.stage(ident, raw(), manifest.tree, services.note("on_disk", reason))
        cache.clear(services, product.name)  # a run died before it did
        return reason
    if stage.look(root).running == manifest.version:
        raise RejectedError(
            f"{root}/releases/{manifest.version} runs and is not what was signed "
            f"as {manifest.version}",
            means="it cannot be replaced while it is the running release",
            do=f"run `updaterd verify {product.name} --repair`",
            code="label_in_use",
        )
    bases = acquire.base_trees(product, services)
    job = Job(
        product=product,
        manifest=manifest,
        raw=raw,
        ident=ident,
        bases=bases,
        fetched=deployment.bytes_fetched,
        counted=None if deployment.state is State.QUEUED else deployment.bytes_cached,
    )
    acquire.prepare(job, services)
    env = hooks.environment(
        product,
        version=manifest.version,
        from_version=deployment.from_version,
        trigger=deployment.trigger,
    )
    hooks.run_hook("pre_stage", product, env, trusted=services.trusted)
    same_tree = manifest.tree in job.have.values()  # under another label
    if same_tree or stage.look(root).running == activate.UNMANAGED:
        found = acquire.reassemble(job, services)
        if found is not None:
            return found
    return acquire.acquire(job, services).reason
