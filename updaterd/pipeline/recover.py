# SPDX-License-Identifier: Apache-2.0
"""Perform what `core/recovery` decides about what a dead run left.

Called at the start of every run, under the product's lock, before anything new.
"""

from updaterd.core import manifest as manifests
from updaterd.core import recovery
from updaterd.core.lifecycle import TOUCHED, State
from updaterd.core.recovery import Step, Unfinished, Verdict
from updaterd.core.settings import ITSELF, Product
from updaterd.errors import (
    BrokenError,
    MalformedError,
    TransientError,
    UpdaterError,
)
from updaterd.install import activate, beside, hooks, stage
from updaterd.install.going_down import StoppingError
from updaterd.pipeline import itself, pruning, removing, rollback, trial
from updaterd.pipeline.machine import Services
from updaterd.pipeline.run import Outcome, Run, at_work
from updaterd.pipeline.tree import cache
from updaterd.store.journal import Deployment, Release


def recover(product: Product, services: Services) -> tuple[str, ...]:
    """Finish or undo what a dead run left, and nothing else.

    Raises:
        BrokenError: a person must look.
        TransientError: the disk refused.

    Power cut: as `settle`.
    """
    run = Run(product, services)
    with at_work(run):
        return settle(run)


def settle(run: Run, *, anew: bool = False) -> tuple[str, ...]:
    """Bring journal and disk into agreement; return what was done, in sentences.

    Safe to repeat and to be killed at any instant.

    Args:
        run: one product on this machine.
        anew: a person said that a tree that is gone shall be installed anew.

    Raises:
        TransientError: no release is on disk, and the journal has one installed.
        BrokenError: a person must look: `current` was replaced, or there is no
            release left to return to.
        UpdaterError: a removal that a person ordered cannot be finished.
        OSError: the disk refused; the next run tries again.

    Power cut: as each step it performs; the journal names the open deployment.
    """
    root = run.root
    deployment = run.journal.open_deployment(run.name)
    if deployment is not None and removing.is_ordered(deployment):
        removed = removing.finish(run, deployment)
        return (f"{run.name}: {deployment.reason}", *removed.notes)
    activate.finish_take_over(root)
    obstacles = beside.finish(root)
    itself.recall(run)
    deployment = run.journal.open_deployment(run.name)
    installed = run.journal.installed(run.name)
    verdict = recovery.decide(
        stage.look(root),
        None if deployment is None else _unfinished(run, deployment),
        None if installed is None else installed.version,
        anew=anew,
        packaged=run.name == ITSELF,
    )
    remarks = _perform(run, verdict, deployment)
    _reconcile(run)
    cache.clear_built(run)
    if run.journal.open_deployment(run.name) is None:
        # else `acquire` goes on with what is of use
        obstacles += stage.clear_leftovers(root)
    pruning.look_again(run, obstacles)
    return remarks


def _unfinished(run: Run, deployment: Deployment) -> Unfinished:
    return Unfinished(
        state=deployment.state,
        version=deployment.version,
        from_version=deployment.from_version,
        same_boot=deployment.boot == run.services.boot,
        by_hand=deployment.trigger == rollback.TRIGGER,
        excused=deployment.code == StoppingError.code,
        trials=sum(
            step.state is State.PROBATION and step.code != StoppingError.code
            for step in run.journal.transitions(deployment.id)
        ),
    )


def _perform(
    run: Run,
    verdict: Verdict,
    deployment: Deployment | None,
) -> tuple[str, ...]:
    """Take the step; return what a person should know about it.

    Raises:
        _stuck: see `settle`.
    """
    root = run.root
    match verdict.step:
        case Step.NOTHING | Step.CONTINUE:
            return (verdict.reason,) if verdict.reason else ()
        case Step.FORWARD if deployment is not None:
            return (verdict.reason, _forward(run, deployment))
        case Step.BACK | Step.WITHDRAW if deployment is not None:
            if deployment.state is not State.ROLLING_BACK:
                note = run.note(verdict.code, verdict.reason)
                run.journal.condemn(deployment.id, note)
            return (_ended(trial.roll_back(run, deployment.id)),)
        case Step.RECORD if verdict.version is not None:
            _close(run, deployment, verdict)
            _record(run, verdict.version)
        case Step.RESTORE if verdict.version is not None:
            _close(run, deployment, verdict)
            previous = stage.look(root).previous
            whole = stage.look(root).whole
            activate.go_back(
                root,
                verdict.version,
                previous=previous if previous in whole else None,
            )
            _record(run, verdict.version)
        case Step.FORGET | Step.STAND_ASIDE:
            _close(run, deployment, verdict)
            itself.forget(run, held=verdict.step is Step.STAND_ASIDE)
        case Step.ADOPT:
            activate.take_over(root)
            _record(run, activate.UNMANAGED)
        case _:
            if verdict.code == "nothing_to_return_to":
                _close(run, deployment, verdict)  # else no release could heal it
            raise _stuck(run, verdict)
    return (f"{run.name}: {verdict.reason}",)


def _stuck(run: Run, verdict: Verdict) -> UpdaterError:
    text = f"{run.product.root}: {verdict.reason}"
    if verdict.step is Step.GONE:
        return TransientError(
            text,
            means="its file system may not be mounted; nothing is installed below "
            "where it belongs",
            do="mount it; if everything was deleted, "
            f"`updaterd update {run.name} --retry` installs it anew",
            code=verdict.code,
        )
    return BrokenError(
        text,
        means="what `current` names was not proven, and goes on running"
        if verdict.code == "nothing_to_return_to"
        else "updaterd touches nothing there until this is settled",
        do=_advice(run, verdict),
        code=verdict.code,
    )


def _forward(run: Run, deployment: Deployment) -> str:
    """Go on with an activation; return how it ended."""
    if deployment.trigger != rollback.TRIGGER:
        return _ended(trial.perform(run, deployment))
    try:
        return _ended(rollback.finish(run, deployment))
    except hooks.HookError as error:
        return str(error)  # it has ended, and what ran goes on running


def reconsider(run: Run) -> tuple[str, ...]:
    """Take back the block on what runs, if it is well; return what was found.

    A release that could not be left, or was returned to while something that it
    needs was down, was judged once, by a look that said so little.

    Power cut: it stays blocked, and is looked at by the next run.
    """
    journal, name = run.journal, run.name
    installed = journal.installed(name)
    failed = installed and journal.failed(name).get(installed.version)
    if not installed or not failed or failed.seq != installed.seq:
        return ()
    unwell = trial.unwell(run, version=installed.version)
    if unwell:
        return (f"{installed.version} runs, and is not well: {unwell}",)
    journal.unblock(name, installed.version)
    return (f"{installed.version} runs and is well: it is not blocked any more",)


def _ended(outcome: Outcome) -> str:
    if outcome.result == "installed":
        return f"{outcome.version} is installed"
    return (
        f"returned from {outcome.from_version} to {outcome.version or 'nothing'}: "
        f"{outcome.reason}"
    )


def _advice(run: Run, verdict: Verdict) -> str:
    if verdict.code == "nothing_to_return_to":
        return "see whether it works; publish a release that does"
    return (
        "move it away and run `updaterd update`, or let "
        f"`updaterd verify {run.name} --repair` put it right"
    )


def _close(run: Run, deployment: Deployment | None, verdict: Verdict) -> None:
    """End a deployment whose ground is gone: what it started from, or its way back.

    Power cut: it may stay ROLLING_BACK, and is ended by the next start.
    """
    if deployment is None:
        return
    note = run.note(verdict.code, verdict.reason)
    if deployment.state is State.PROBATION:
        run.journal.move(deployment.id, State.ROLLING_BACK, note)
    touched = deployment.state in TOUCHED
    end = State.FAILED if touched else State.SKIPPED
    run.journal.move(deployment.id, end, note)


def _record(run: Run, version: str) -> None:
    """Take a release on disk over into the journal as the installed one."""
    release, raw = _known(run, version)
    sha256 = run.keep(version, raw)
    run.journal.record_installed(run.name, release, sha256, now=run.services.clock())
    if raw:
        floor = manifests.parse(raw).floor_seq
        run.journal.hear_from_disk(run.name, floor)


def _known(run: Run, version: str) -> tuple[Release, bytes]:
    """Return a release on disk as its listing describes it; seq 0 without one."""
    raw = run.manifest(version)
    if raw is None:
        saved = stage.saved_manifests(run.root, [version])
        raw = saved.get(version, b"")
    try:
        manifest = manifests.parse(raw)
    except MalformedError:
        return Release(version, 0, ""), b""
    return Release(manifest.version, manifest.seq, manifest.tree), raw


def _reconcile(run: Run) -> None:
    """Make the journal's list of releases that of the disk."""
    whole = stage.look(run.root).whole
    listed = {release.version for release in run.journal.releases(run.name)}
    for version in sorted(listed - whole):
        run.journal.forget_release(run.name, version)
    for version in sorted(whole - listed):
        release, raw = _known(run, version)
        if raw:
            run.journal.remember_release(run.name, release, run.keep(version, raw))
