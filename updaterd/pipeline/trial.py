# SPDX-License-Identifier: Apache-2.0
"""The dangerous stretch: activation, restart, health, and the way back.

    STAGED -> ACTIVATING -> PROBATION -> INSTALLED
                   |            |
                   +--> ROLLING_BACK --> ROLLED_BACK | FAILED

Each arrow is journalled before the disk is touched. A signal that would end the
process waits until the stretch is over. What fails while the machine goes down is
nobody's fault: the deployment stays where it is, and the next start goes on.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from updaterd.core.lifecycle import State
from updaterd.core.recovery import Link
from updaterd.core.settings import Product
from updaterd.errors import BrokenError, UpdaterError
from updaterd.install import activate, going_down, health, hooks, stage
from updaterd.install.commands import UnsafeCommandError
from updaterd.install.going_down import StoppingError
from updaterd.install.restart_systemd import RefusedError
from updaterd.pipeline import earlier, facts, pruning
from updaterd.pipeline.services import Outcome, Services, Teller
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
            teller.say(f"ending as told ({name}); `updaterd status` says how it went")
            signal.raise_signal(got)


def examine(product: Product, deployment: Deployment, services: Services) -> None:
    """Ask a staged release whether it works here, before anything moves.

    Raises:
        RejectedError: it does not.
        HookError: there is no telling now; the deployment stays STAGED.
        UnsafeCommandError: others could change what would be asked.
    """
    env = _environment(product, deployment)
    hooks.run_self_test(product, env, trusted=services.trusted)


def prepare(product: Product, deployment: Deployment, services: Services) -> bool:
    """Ask who must agree before a staged release is activated: systemd and the owner.

    Returns:
        Whether a hook was asked, which may have taken its time.

    Raises:
        HookError: `pre_activate` said no; the deployment stays STAGED.
        RefusedError: systemd does not have the units; the deployment stays STAGED.
    """
    # A first release may bring its units (links into `current`), a hook may too.
    if deployment.from_version is not None and not product.hooks.post_activate:
        services.manager.check(product.units)
    env = _environment(product, deployment)
    hooks.run_hook("pre_activate", product, env, trusted=services.trusted)
    return bool(product.hooks.pre_activate)


def perform(product: Product, deployment: Deployment, services: Services) -> Outcome:
    """Activate a staged release and put it on trial.

    Args:
        product: the application.
        deployment: in STAGED, and prepared, or where it was interrupted.
        services: the machine.

    Raises:
        StoppingError: the machine goes down; the deployment stays in PROBATION or
            ROLLING_BACK.
        OSError: the disk refused; the old release runs, the deployment is FAILED.
        BrokenError: neither release could be brought up.

    Power cut: see `core/recovery`: forward from ACTIVATING, back from PROBATION unless
        a person ordered it, or the machine was going down.
    """
    env = _environment(product, deployment)
    with undisturbed(services.teller) as told:
        if deployment.state is State.STAGED:
            moving = services.note(reason=f"moving `current` to {deployment.version}")
            services.journal.move(deployment.id, State.ACTIVATING, moving)
        try:
            activate.activate(Path(product.root), deployment.version)
        except OSError as error:
            _abandon(product, deployment, services, error)
            raise
        on_trial = services.note(reason="restarting and checking health")
        services.journal.move(deployment.id, State.PROBATION, on_trial)
        services.teller.say(f"{deployment.version} is active, on trial")
        found = _trial(product, services, env)
        if found and going_down.is_going_down(services.manager, told):
            put_off(deployment, services, found[1])
        if found:
            code, reason = found
            services.teller.say(f"rolling back: {reason}")
            services.journal.condemn(deployment.id, services.note(code, reason))
            return roll_back(product, deployment.id, services)
        tree = _tree(services, product, deployment.version)
        began, *_ = services.journal.transitions(deployment.id)
        well = services.note(began.code, f"{began.reason}; {deployment.reason}")
        services.journal.install(deployment.id, tree, well)
        outcome = Outcome(
            product=product.name,
            result="installed",
            code="installed",
            reason=f"{deployment.version} is installed",
            from_version=deployment.from_version,
            version=deployment.version,
        )
        facts.note_end(product, services, outcome)
    pruning.tidy(product, services)
    return outcome


def _trial(
    product: Product, services: Services, env: dict[str, str]
) -> tuple[str, str] | None:
    """Return code and reason when the new release is not well."""
    try:
        hooks.run_hook("post_activate", product, env, trusted=services.trusted)
        services.manager.restart(product.units)
        said = _fault(product, services, env)
    except UpdaterError as error:
        return error.code, str(error) if isinstance(error, RefusedError) else error.what
    return ("unhealthy", said) if said else None


def put_off(deployment: Deployment, services: Services, said: str) -> NoReturn:
    """Leave a trial to the next start of the machine.

    Raises:
        StoppingError: always.
    """
    what = f"{deployment.version} was on trial when the machine was told to stop"
    note = services.note(StoppingError.code, f"{what} ({said})")
    services.journal.move(deployment.id, State.PROBATION, note)
    raise StoppingError(what, means="nobody's fault: its trial is held again")


def unwell(product: Product, services: Services, *, version: str) -> str:
    """Return what is wrong with the installed release as it runs, or nothing."""
    env = hooks.environment(
        product, version=version, from_version=version, trigger="check"
    )
    return _fault(product, services, env)


def _fault(product: Product, services: Services, env: dict[str, str]) -> str:
    return health.fault(
        product.health,
        product.units,
        trusted=services.trusted,
        manager=services.manager,
        getter=services.fetcher,
        env=env,
    )


def roll_back(product: Product, ident: int, services: Services) -> Outcome:
    """Return to the release that ran before, restart it, and see that it is well.

    Args:
        product: the application.
        ident: a deployment in ROLLING_BACK; its reason is the verdict.
        services: the machine.

    Raises:
        BrokenError: there is nothing to return to, or it is not well either.
        StoppingError: the machine goes down; the deployment stays ROLLING_BACK.
        OSError: the disk refused; the deployment stays ROLLING_BACK.

    Power cut: the deployment stays ROLLING_BACK and the next start goes on here.
    """
    root = Path(product.root)
    deployment = services.journal.deployment(ident)
    verdict = services.note(deployment.code, deployment.reason)
    try:
        target = _return_to(root, deployment)
    except BrokenError as error:
        # Ended, not left open: a newer release may heal the machine.
        services.journal.move(
            ident, State.FAILED, services.note(error.code, error.what)
        )
        raise
    env = _environment(product, deployment)
    with undisturbed(services.teller) as told:
        if target is None:
            said = _withdraw(product, deployment, services)
        else:
            older = earlier.choices(product, services.journal, running=target)
            activate.go_back(root, target, previous=older[0].version if older else None)
            said = _bring_up(
                product,
                services,
                _environment(product, deployment, target),
                refused=deployment.code == RefusedError.code,
            )
        try:
            hooks.run_hook("post_rollback", product, env, trusted=services.trusted)
        except UpdaterError as error:
            services.teller.say(str(error))
        if said and going_down.is_going_down(services.manager, told):
            raise StoppingError(
                f"{product.name}: {deployment.version} was being left for {target} "
                "when the machine was told to stop",
                means="the next start goes on",
            )
        if said:
            reason = f"{deployment.reason}; then {target} is not well either: {said}"
            services.journal.move(
                ident, State.FAILED, services.note("rollback_unhealthy", reason)
            )
            raise BrokenError(
                f"{product.name}: rolled back from {deployment.version} to {target}, "
                f"which is not well either: {said}",
                means="the application may be down",
                do=_way_on(product, services, str(target)),
                code="rollback_unhealthy",
            )
        services.journal.move(ident, State.ROLLED_BACK, verdict)
        if target is not None:  # left by hand, perhaps; it runs again, and is well
            services.journal.unblock(product.name, target)
        outcome = Outcome(
            product=product.name,
            result="rolled_back",
            code=deployment.code,
            reason=deployment.reason,
            from_version=deployment.version,
            version=target,
        )
        facts.note_end(product, services, outcome)
    return outcome


def _way_on(product: Product, services: Services, running: str) -> str:
    advice = "look at its units and logs"
    others = earlier.choices(product, services.journal, running=running)
    if not others:
        return advice
    return f"{advice}; `updaterd rollback {product.name}` goes to {others[0].version}"


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


def _withdraw(product: Product, deployment: Deployment, services: Services) -> str:
    activate.withdraw(Path(product.root))
    try:
        services.manager.stop(product.units)
    except UpdaterError as error:
        services.teller.say(str(error))
    services.teller.say(f"{deployment.version} was withdrawn; nothing ran before it")
    return ""


def _bring_up(
    product: Product, services: Services, env: dict[str, str], *, refused: bool
) -> str:
    """Restart the old release; return what is wrong with it, or nothing.

    Where systemd refused to restart for the new release, it goes on running as it was.
    """
    try:
        services.manager.restart(product.units)
    except RefusedError as error:
        if not refused:
            return error.what
    except UpdaterError as error:
        return error.what
    try:
        return _fault(product, services, env)
    except UnsafeCommandError as error:
        return error.what


def _abandon(
    product: Product, deployment: Deployment, services: Services, error: OSError
) -> None:
    """The disk refused to move the links: leave them as they were.

    Raises:
        OSError: not even that works; the deployment stays open for the next start.
    """
    note = services.note("activation_failed", str(error))
    services.journal.move(deployment.id, State.ROLLING_BACK, note)
    root = Path(product.root)
    disk = stage.look(root)
    if disk.current is Link.RELEASE and disk.running == deployment.version:
        target = _return_to(root, deployment)
        if target is None:
            activate.withdraw(root)
        else:
            activate.go_back(root, target, previous=None)
    services.journal.move(deployment.id, State.FAILED, note)


def _tree(services: Services, product: Product, version: str) -> str:
    for release in services.journal.releases(product.name):
        if release.version == version:
            return release.tree
    return ""


def _environment(
    product: Product, deployment: Deployment, back_to: str | None = None
) -> dict[str, str]:
    """Return what a step finds in its environment; `back_to`: it is about that one."""
    return hooks.environment(
        product,
        version=back_to or deployment.version,
        from_version=deployment.version if back_to else deployment.from_version,
        trigger=deployment.trigger,
    )
