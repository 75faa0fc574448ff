# SPDX-License-Identifier: Apache-2.0
"""By hand: return to a release that ran here before, offline.

The order is journalled in one step, together with the block on what is left. From
then on it is carried out, by this run or by the next: see `core/recovery`.
"""

from dataclasses import replace

from updaterd.artifact.verify import Problem
from updaterd.core import manifest as manifests
from updaterd.core.lifecycle import State
from updaterd.errors import BrokenError, RejectedError, UpdaterError
from updaterd.install import stage
from updaterd.pipeline import earlier, trial
from updaterd.pipeline.earlier import Earlier
from updaterd.pipeline.run import Outcome, Run
from updaterd.pipeline.tree import byte_code
from updaterd.store.journal import Deployment, Release

TRIGGER = "rollback"
"""What started such a deployment, as the journal says it."""
_CODE = "rolled_back_by_hand"
_NOT_LEFT = frozenset({State.STAGED, State.ROLLING_BACK, State.FAILED})


def roll_back(run: Run, *, to: str | None) -> Outcome:
    """Return to an earlier release; what runs now is blocked.

    It goes through the same trial as an update: a release that is not well is left
    again. One that is damaged, or that its publisher forbade, is passed over for the
    next.

    Args:
        run: one product on this machine.
        to: the release to return to; None for the best there is.

    Raises:
        _nothing: there is nothing to return to.
        BrokenError: nothing is installed; or what there is is damaged.
        RejectedError: what there is is below the signed floor.
        UpdaterError: one of these; or a hook said no.
        OSError: the disk refused; what runs now goes on running.

    Power cut: the order is in the journal or it is not; see `core/recovery`.
    """
    record = run.journal.installed(run.name)
    if record is None:
        raise BrokenError(
            f"{run.name}: nothing is installed",
            do=f"run `updaterd update {run.name}`",
            code="nothing_to_return_to",
        )
    installed = Release(record.version, record.seq, record.tree)
    if to == installed.version:
        return _outcome(run, to, None, f"{to} is installed and runs already")
    refused: list[UpdaterError] = []
    for candidate in _candidates(run, installed.version, to):
        try:
            raw = _checked(run, candidate)
        except (BrokenError, RejectedError) as error:
            refused.append(error)
            continue
        outcome = _order(run, installed, candidate.release, raw)
        return replace(outcome, notes=(*map(str, refused), *_remark(candidate)))
    if refused:
        raise refused[0]
    raise _nothing(run, installed.version, to)


def _candidates(run: Run, running: str, to: str | None) -> tuple[Earlier, ...]:
    if to is None:
        return earlier.choices(run.product, run.journal, running=running)
    every = earlier.all_of(run.product, run.journal, running=running)
    return tuple(entry for entry in every if entry.version == to)


def _nothing(run: Run, running: str, to: str | None) -> BrokenError:
    name = run.name
    others = earlier.all_of(run.product, run.journal, running=running)
    known = ", ".join(entry.version for entry in others)
    if to is not None:
        return BrokenError(
            f"{name} {to} is not a release on disk that ran here before",
            means="`rollback` returns only to what is known to have run",
            do=f"these there are: {known}" if known else "publish it to the channel",
            code="nothing_to_return_to",
        )
    return BrokenError(
        f"{name}: no earlier release is on disk",
        means=f"{known}: on disk, left for what runs now" if known else "",
        do=f"`updaterd rollback {name} --to {others[0].version}` returns to it all "
        "the same"
        if others
        else "publish an older release to the channel, or raise `keep`",
        code="nothing_to_return_to",
    )


def _checked(run: Run, candidate: Earlier) -> bytes:
    """Return the listing of a release that may be returned to, if it is known.

    Raises:
        RejectedError: it is below the floor.
        BrokenError: it is damaged.
    """
    journal, name, target = run.journal, run.name, candidate.release
    floor = journal.floor(name)
    if target.seq < floor:
        raise RejectedError(
            f"{name} {target.version} (seq {target.seq}) is below the floor {floor}",
            means="its publisher forbade going back there, for security",
            code="below_floor",
        )
    raw = run.manifest(target.version) or b""
    tree = stage.releases(run.root) / target.version
    wrong: tuple[Problem, ...] = ()
    if raw:
        listed = manifests.parse(raw)
        wrong = byte_code.swept(tree, listed.files, listed.attributes)
    if wrong:
        raise BrokenError(
            f"{name} {target.version} is damaged: "
            f"{wrong[0].path} {wrong[0].difference}",
            means="updaterd does not switch to a damaged release",
            do="publish a release that works",
            code="previous_damaged",
        )
    return raw


def _remark(candidate: Earlier) -> tuple[str, ...]:
    if candidate.failed is None:
        return ()
    block = f"{candidate.version} was blocked here ({candidate.failed.reason})"
    return (f"{block}; it has run here before, and a person asked",)


def _order(run: Run, leaving: Release, target: Release, raw: bytes) -> Outcome:
    journal, name = run.journal, run.name
    reason = f"rolled back by hand from {leaving.version} to {target.version}"
    note = run.note(_CODE, reason)
    open_ = journal.open_deployment(name)
    if open_ is not None:
        journal.move(open_.id, State.SKIPPED, note)
    ident = journal.begin(name, run.product.channel, target, TRIGGER, note)
    journal.order_back(ident, run.keep(target.version, raw), target.tree, leaving, note)
    return finish(run, journal.deployment(ident))


def finish(run: Run, deployment: Deployment) -> Outcome:
    """Carry out what a person ordered, from where it stands.

    Raises:
        HookError: `pre_activate` said no; the deployment is FAILED.
        BrokenError: neither release is well.
        UpdaterError: one of these.
        OSError: the disk refused.

    Power cut: as `trial.perform`; the next start goes on.
    """
    journal, name, ident = run.journal, run.name, deployment.id
    began, *_ = journal.transitions(ident)
    try:
        if deployment.state is State.STAGED:
            trial.prepare(run, deployment)
        outcome = trial.perform(run, deployment)
    except UpdaterError as error:
        if journal.deployment(ident).state is State.STAGED:
            journal.move(ident, State.FAILED, run.note(error.code, error.cause))
            _stay(run, deployment)
        raise
    except OSError:
        if journal.deployment(ident).state in _NOT_LEFT:
            _stay(run, deployment)
        raise
    if outcome.result == "rolled_back":
        return outcome
    journal.remember(name, decision="rolled_back_by_hand", decision_reason=began.reason)
    return _outcome(run, deployment.version, deployment.from_version, began.reason)


def _stay(run: Run, deployment: Deployment) -> None:
    """Take back the block on what was to be left, and was not."""
    if deployment.from_version is not None:
        run.journal.unblock(deployment.product, deployment.from_version)


def carried_out(
    run: Run,
    *,
    before: Deployment | None,
    running: str | None,
    to: str | None,
) -> Outcome | None:
    """Return the outcome when recovery has already done what `rollback` asks for.

    A person whose roll back was cut short types it again: that must not go back
    twice. Neither must it when what they want to leave was on trial and has been
    left meanwhile; then it must not come back by itself either.

    Args:
        run: one product on this machine.
        before: the deployment that was open when the command began.
        running: what `current` named then.
        to: the release that was asked for, if one was.
    """
    journal, name = run.journal, run.name
    installed = journal.installed(name)
    if before is None or installed is None or to not in (None, installed.version):
        return None
    ended = journal.deployment(before.id)
    if before.trigger == TRIGGER and ended.state is State.INSTALLED:
        reason = journal.transitions(before.id)[0].reason
        return _outcome(run, before.version, before.from_version, reason)
    if ended.state is not State.ROLLED_BACK or before.version != running:
        return None
    reason = f"rolled back by hand from {before.version} to {installed.version}"
    journal.block(name, before, run.note(_CODE, reason))
    journal.remember(name, decision="rolled_back_by_hand", decision_reason=reason)
    return _outcome(run, installed.version, before.version, reason)


def _outcome(run: Run, version: str, from_version: str | None, reason: str) -> Outcome:
    return Outcome(
        product=run.name,
        result="installed" if from_version else "current",
        code=_CODE if from_version else "current",
        reason=reason,
        from_version=from_version,
        version=version,
    )
