# SPDX-License-Identifier: Apache-2.0
"""Activate a staged release, restart and check it, and go back where it is not well.

    STAGED -> ACTIVATING -> PROBATION -> INSTALLED
                   |            |
                   +--> ROLLING_BACK --> ROLLED_BACK | FAILED

Each arrow is journalled before the disk is touched. A signal that would end the
process waits until the stretch is over. What fails while the machine goes down is
nobody's fault: the deployment stays where it is, and the next start goes on.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NoReturn

from updaterd.core.dataclass import dataclass
from updaterd.core.lifecycle import State
from updaterd.core.recovery import Link
from updaterd.errors import BrokenError, UpdaterError
from updaterd.install import activate, going_down, health, hooks, stage
from updaterd.install.going_down import StoppingError
from updaterd.install.restart_systemd import RefusedError
from updaterd.pipeline import earlier, pruning
from updaterd.pipeline.decision import notes
from updaterd.pipeline.machine import Teller
from updaterd.pipeline.run import Outcome, Run
from updaterd.store.journal import Deployment

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def undisturbed(teller: Teller) -> Iterator[list[int]]:
    """Put off the signals that would end this process until the block is over.

    Yields:
        Those that have come.
    """
    caught: list[int] = []
    old = {
        number: signal.signal(number, lambda got, _: caught.append(got))
        for number in _SIGNALS
    }
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        for got in caught[:1]:
            name = signal.Signals(got).name
            teller.say(
                f"stopping because of {name}; `updaterd status` says how it went"
            )
            signal.raise_signal(got)


def examine(run: Run, deployment: Deployment) -> None:
    """Ask a staged release whether it works here, before anything moves.

    Raises:
        RejectedError: it does not.
        HookError: there is no telling now; the deployment stays STAGED.
        UnsafeCommandError: others could change what would be asked.
    """
    env = _environment(run, deployment)
    hooks.run_self_test(run.product, env, trusted=run.services.trusted)


def prepare(run: Run, deployment: Deployment) -> bool:
    """Ask who must agree before a staged release is activated: systemd and the owner.

    Returns:
        Whether a hook was asked, which may have taken its time.

    Raises:
        HookError: `pre_activate` said no; the deployment stays STAGED.
        RefusedError: systemd does not have the units; the deployment stays STAGED.
    """
    # A first release may bring its units (links into `current`), a hook may too.
    if deployment.from_version is not None and not run.product.hooks.post_activate:
        run.services.manager.check(run.product.units)
    env = _environment(run, deployment)
    run.hook("pre_activate", env)
    return bool(run.product.hooks.pre_activate)


def perform(run: Run, deployment: Deployment) -> Outcome:
    """Activate a staged release and put it on trial.

    Args:
        run: one product on this machine.
        deployment: in STAGED, and prepared, or where it was interrupted.

    Raises:
        StoppingError: the machine goes down; the deployment stays in PROBATION or
            ROLLING_BACK.
        OSError: the disk refused; the old release runs, the deployment is FAILED.
        BrokenError: neither release could be brought up.

    Power cut: see `core/recovery`: forward from ACTIVATING, back from PROBATION unless
        a person ordered it, or the machine was going down.
    """
    env = _environment(run, deployment)
    with undisturbed(run.services.teller) as signals:
        if deployment.state is State.STAGED:
            moving = run.note(reason=f"moving `current` to {deployment.version}")
            run.journal.move(deployment.id, State.ACTIVATING, moving)
        try:
            activate.activate(run.root, deployment.version)
        except OSError as error:
            _abandon(run, deployment, error)
            raise
        on_trial = run.note(reason="restarting and checking health")
        run.journal.move(deployment.id, State.PROBATION, on_trial)
        run.say(f"{deployment.version} is active, on trial")
        fault = _try_out(run, env)
        if fault and going_down.is_going_down(run.services.manager, signals):
            put_off(run, deployment, fault.text)
        if fault:
            run.say(f"rolling back: {fault.text}")
            run.journal.condemn(deployment.id, run.note(fault.code, fault.text))
            return roll_back(run, deployment.id)
        tree = _tree(run, deployment.version)
        began, *_ = run.journal.transitions(deployment.id)
        well = run.note(began.code, f"{began.reason}; {deployment.reason}")
        run.journal.install(deployment.id, tree, well)
        outcome = Outcome(
            product=run.name,
            result="installed",
            code="installed",
            reason=f"{deployment.version} is installed",
            from_version=deployment.from_version,
            version=deployment.version,
        )
        notes.write_end(run, outcome)
    pruning.tidy(run)
    return outcome


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a release as it runs: a stable code, and text for a person."""

    code: str
    text: str


def _try_out(run: Run, env: dict[str, str]) -> Fault | None:
    """Bring a new release up; return what is wrong with it, if anything is."""
    try:
        run.hook("post_activate", env)
    except UpdaterError as error:
        return Fault(error.code, error.cause)
    return bring_up(run, env)


def bring_up(
    run: Run, env: dict[str, str], *, runs_already: bool = False
) -> Fault | None:
    """Restart the product's units, then check their health.

    Args:
        run: one product on this machine.
        env: what a health command finds in its environment.
        runs_already: the release goes on running where systemd refuses to restart it.

    Returns:
        What is wrong with the release as it runs; None when it is well.
    """
    try:
        with suppress(RefusedError) if runs_already else nullcontext():
            run.services.manager.restart(run.product.units)
        text = _fault(run, env)
    except UpdaterError as error:
        text = str(error) if isinstance(error, RefusedError) else error.cause
        return Fault(error.code, text)
    return Fault("unhealthy", text) if text else None


def put_off(run: Run, deployment: Deployment, fault_text: str) -> NoReturn:
    """Leave a trial to the next start of the machine.

    Raises:
        StoppingError: always.
    """
    text = f"{deployment.version} was on trial when the machine was told to stop"
    note = run.note(StoppingError.code, f"{text} ({fault_text})")
    run.journal.move(deployment.id, State.PROBATION, note)
    raise StoppingError(
        text, means="the release is not to blame: its trial is repeated"
    )


def unwell(run: Run, *, version: str) -> str:
    """Return what is wrong with the installed release as it runs, or nothing."""
    env = hooks.environment(
        run.product, version=version, from_version=version, trigger="check"
    )
    return _fault(run, env)


def _fault(run: Run, env: dict[str, str]) -> str:
    return health.fault(
        run.product.health,
        run.product.units,
        trusted=run.services.trusted,
        manager=run.services.manager,
        getter=run.services.fetcher,
        env=env,
    )


def roll_back(run: Run, ident: int) -> Outcome:
    """Return to the release that ran before, restart it, and see that it is well.

    Args:
        run: one product on this machine.
        ident: a deployment in ROLLING_BACK; its reason is the verdict.

    Raises:
        BrokenError: there is nothing to return to, or it is not well either.
        StoppingError: the machine goes down; the deployment stays ROLLING_BACK.
        OSError: the disk refused; the deployment stays ROLLING_BACK.

    Power cut: the deployment stays ROLLING_BACK and the next start goes on here.
    """
    root = run.root
    deployment = run.journal.deployment(ident)
    verdict = run.note(deployment.code, deployment.reason)
    try:
        target = _return_to(root, deployment)
    except BrokenError as error:
        # Ended, not left open: a newer release may heal the machine.
        run.journal.move(ident, State.FAILED, run.note(error.code, error.cause))
        raise
    env = _environment(run, deployment)
    with undisturbed(run.services.teller) as signals:
        if target is None:
            _withdraw(run, deployment)
            fault = None
        else:
            older = earlier.choices(run.product, run.journal, running=target)
            activate.go_back(root, target, previous=older[0].version if older else None)
            fault = bring_up(
                run,
                _environment(run, deployment, target),
                runs_already=deployment.code == RefusedError.code,
            )
        try:
            run.hook("post_rollback", env)
        except UpdaterError as error:
            run.say(str(error))
        if fault and going_down.is_going_down(run.services.manager, signals):
            raise StoppingError(
                f"{run.name}: {deployment.version} was being left for {target} "
                "when the machine was told to stop",
                means="the next start goes on",
            )
        if fault:
            reason = (
                f"{deployment.reason}; then {target} is not well either: {fault.text}"
            )
            run.journal.move(
                ident, State.FAILED, run.note("rollback_unhealthy", reason)
            )
            raise BrokenError(
                f"{run.name}: rolled back from {deployment.version} to {target}, "
                f"which is not healthy either: {fault.text}",
                means="the application may be down",
                do=_way_on(run, str(target)),
                code="rollback_unhealthy",
            )
        run.journal.move(ident, State.ROLLED_BACK, verdict)
        if target is not None:  # left by hand, perhaps; it runs again, and is well
            run.journal.unblock(run.name, target)
        outcome = Outcome(
            product=run.name,
            result="rolled_back",
            code=deployment.code,
            reason=deployment.reason,
            from_version=deployment.version,
            version=target,
        )
        notes.write_end(run, outcome)
    return outcome


def _way_on(run: Run, running: str) -> str:
    advice = "look at its units and logs"
    others = earlier.choices(run.product, run.journal, running=running)
    if not others:
        return advice
    return f"{advice}; `updaterd rollback {run.name}` goes to {others[0].version}"


def _return_to(root: Path, deployment: Deployment) -> str | None:
    disk = stage.look(root)
    for version in (deployment.from_version, disk.previous):
        if version and version != deployment.version and version in disk.whole:
            return version
    if deployment.from_version is None:
        return None
    raise BrokenError(
        f"{root}: {deployment.version} failed ({deployment.reason}), and "
        f"{deployment.from_version} is not on disk any more",
        means="the failed release keeps running: there is nothing to return to",
        do="publish a release that works, or put the old one back by hand",
        code="nothing_to_return_to",
    )


def _withdraw(run: Run, deployment: Deployment) -> None:
    activate.withdraw(run.root)
    try:
        run.services.manager.stop(run.product.units)
    except UpdaterError as error:
        run.say(str(error))
    run.say(f"{deployment.version} was withdrawn; nothing ran before it")


def _abandon(run: Run, deployment: Deployment, error: OSError) -> None:
    """The disk refused to move the links: leave them as they were.

    Raises:
        OSError: not even that works; the deployment stays open for the next start.
    """
    note = run.note("activation_failed", str(error))
    run.journal.move(deployment.id, State.ROLLING_BACK, note)
    root = run.root
    disk = stage.look(root)
    if disk.current is Link.RELEASE and disk.running == deployment.version:
        target = _return_to(root, deployment)
        if target is None:
            activate.withdraw(root)
        else:
            activate.go_back(root, target, previous=None)
    run.journal.move(deployment.id, State.FAILED, note)


def _tree(run: Run, version: str) -> str:
    for release in run.journal.releases(run.name):
        if release.version == version:
            return release.tree
    return ""


def _environment(
    run: Run, deployment: Deployment, back_to: str | None = None
) -> dict[str, str]:
    """Return what a step finds in its environment; `back_to`: it is about that one."""
    return hooks.environment(
        run.product,
        version=back_to or deployment.version,
        from_version=deployment.version if back_to else deployment.from_version,
        trigger=deployment.trigger,
    )
