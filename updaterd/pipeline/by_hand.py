# SPDX-License-Identifier: Apache-2.0
"""By hand: go back to an earlier release; compare the tree, repair it; remove it all.

Repair makes a whole new tree beside the damaged one (`reuse.py`) and swaps the two
directories in one step, or where that cannot be done, in several (`install/beside`).
"""

from dataclasses import replace
from pathlib import Path

from updaterd import durable
from updaterd.artifact.verify import Problem, damage, verify_tree
from updaterd.core import manifest as manifests
from updaterd.core.dataclass import dataclass
from updaterd.core.manifest import Manifest
from updaterd.core.recovery import Link
from updaterd.core.settings import Product
from updaterd.errors import BrokenError, RejectedError
from updaterd.install import activate, beside, hooks, prune, stage
from updaterd.install.room import require
from updaterd.pipeline import pruning, recover, removing, rollback, trial
from updaterd.pipeline.machine import Services
from updaterd.pipeline.run import Outcome, Run, at_work
from updaterd.pipeline.tree import byte_code, finish, reuse, room


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What `verify` found and did.

    Attributes:
        problems: what was wrong, before any repair.
        repaired: the tree is whole again.
        bytes_fetched: what the repair downloaded.
        notes: what else a person should know.
    """

    product: str
    version: str
    problems: tuple[Problem, ...] = ()
    repaired: bool = False
    bytes_fetched: int = 0
    notes: tuple[str, ...] = ()


def roll_back(
    product: Product, services: Services, *, to: str | None = None
) -> Outcome:
    """Return to an earlier release, offline; see `rollback.roll_back`.

    Raises:
        BrokenError: there is nothing to return to, or a person must look.
        RejectedError: the earlier release is below the signed floor.
        TransientError: a hook said no, or the disk refused.

    Power cut: as `rollback.roll_back`.
    """
    run = Run(product, services)
    with at_work(run):
        before = run.journal.open_deployment(run.name)
        running = stage.look(run.root).running
        settled = recover.settle(run)
        outcome = rollback.carried_out(
            run, before=before, running=running, to=to
        ) or rollback.roll_back(run, to=to)
        return replace(outcome, notes=(*settled, *outcome.notes))


def remove(product: Product, services: Services) -> removing.Removed:
    """Take a product off this machine; see `removing`.

    Raises:
        BrokenError: it is updaterd itself, something is mounted in it, or others may
            write there.
        TransientError: another run works on it, or the disk refused.
        UpdaterError: a unit does not stop.

    Power cut: as `removing.order` and `removing.finish`.
    """
    run = Run(product, services)
    with at_work(run):
        return removing.finish(run, removing.order(run))


def verify(product: Product, services: Services, *, repair: bool) -> Checked:
    """Compare the installed tree with its signed listing; with `repair`, mend it.

    Raises:
        BrokenError: nothing is installed, or a person must look.
        TransientError: what is missing cannot be fetched now, other bytes than were
            signed came, or the disk refused.
        RejectedError: what was built of them is not what was signed.

    Power cut: the damaged tree or the repaired one is installed, never a mixture.
    """
    run = Run(product, services)
    with at_work(run):
        remarks = _relink(run) if repair else ()
        remarks += recover.settle(run)
        checked = _verify(run, repair=repair)
        return replace(checked, notes=(*remarks, *checked.notes))


def _verify(run: Run, *, repair: bool) -> Checked:
    """Compare the installed tree with its signed listing; with `repair`, mend it.

    Raises:
        BrokenError: nothing is installed, or no listing of it is known.
        TransientError: what is missing cannot be fetched now, or other bytes than were
            signed came.
        RejectedError: what was built of them is not what was signed.
        OSError: the disk refused; the tree is as it was.

    Power cut: the damaged tree or the repaired one is installed, never a mixture.
    """
    root = run.root
    manifest, raw = _installed(run)
    all_found = verify_tree(
        stage.releases(root) / manifest.version, manifest.files, manifest.attributes
    )
    problems = damage(all_found, manifest.files)
    checked = Checked(
        product=run.name,
        version=manifest.version,
        problems=problems,
        notes=(
            *(f"{p.path}: {p.difference}" for p in all_found if p not in problems),
            *_stays(run),
        ),
    )
    if not problems or not repair:
        return checked
    stage.require_ours(root, manifest.version)  # before anything is fetched
    if not byte_code.swept(
        stage.releases(root) / manifest.version,
        manifest.files,
        manifest.attributes,
        loose=False,
    ):
        return replace(checked, repaired=True)
    received = run.services.fetcher.received
    _repair(run, manifest, raw)
    fault = _restart(run, manifest.version)
    return replace(
        checked,
        repaired=True,
        bytes_fetched=run.services.fetcher.received - received,
        notes=(*checked.notes, *((fault,) if fault else ())),
    )


def _stays(run: Run) -> tuple[str, ...]:
    """Return why releases beyond `keep` are still on disk."""
    order = tuple(r.version for r in run.journal.releases(run.name))
    held = pruning.held_by(run)
    old = prune.survey(run.root, order, keep=run.product.keep, holders=held)
    return (
        *(f"old release {name} stays: {why}" for name, why in old.busy.items()),
        *(f"in the way: {obstacle}" for obstacle in old.stuck),
    )


def _relink(run: Run) -> tuple[str, ...]:
    """Put a `current` that a person replaced right; what stood there is kept."""
    root = run.root
    beside.finish(root)
    installed = run.journal.installed(run.name)
    kind = stage.look(root).current
    if installed is None or kind not in (Link.OCCUPIED, Link.FOREIGN):
        return ()
    current = root / "current"
    if kind is Link.FOREIGN:
        before = f"a link to {current.readlink()}"
        durable.point(current, Path("releases", installed.version))
    else:
        before = str(activate.displace(root, installed.version))
    return (f"`current` names {installed.version} again; what stood there: {before}",)


def _installed(run: Run) -> tuple[Manifest, bytes]:
    """Return the signed listing of what is installed.

    Raises:
        BrokenError: there is none.
    """
    installed = run.journal.installed(run.name)
    raw = installed and run.manifest(installed.version)
    if not installed or not raw:
        raise BrokenError(
            f"{run.name}: "
            + (
                f"no signed listing of {installed.version} is known"
                if installed
                else "nothing is installed"
            ),
            do=f"run `updaterd update {run.name}`",
            code="nothing_to_verify",
        )
    return manifests.parse(raw), raw


def _repair(run: Run, manifest: Manifest, raw: bytes) -> None:
    """Build the tree anew, from what is good here and what must be fetched.

    Raises:
        RejectedError: what was built is not what was signed.
    """
    root = run.root
    shared = frozenset[str]()
    if run.product.unchanged == "reflink":
        shared = room.shared_with(
            root, manifest.version, manifest.files, manifest, "reflink"
        )
    need = room.tree(root, manifest.version, manifest.files, shared)
    require([need], min_free=run.services.download.min_free)
    staging = stage.open_staging(root)
    try:
        missing = reuse.take_over(run, manifest, staging)
        if missing:
            reuse.fetch_missing(manifest, missing, run.services, staging)
        wrong = verify_tree(staging, manifest.files)
        if wrong:
            raise RejectedError(
                f"the repaired tree is not as signed: "
                f"{wrong[0].path} {wrong[0].difference}",
                code="bad_output",
            )
        finish.finish(staging, manifest)
        stage.commit(staging, root, manifest.version, raw)
    finally:
        stage.delete_tree(staging)


def _restart(run: Run, version: str) -> str:
    """Restart onto the repaired tree; return what is still wrong, or nothing."""
    env = hooks.environment(
        run.product, version=version, from_version=version, trigger="repair"
    )
    fault = trial.bring_up(run, env)
    if fault is not None and fault.code != "unhealthy":
        return fault.text
    order = tuple(r.version for r in run.journal.releases(run.name))
    held, keep = pruning.held_by(run), max(run.product.keep, len(order))
    prune.prune(run.root, order, keep=keep, holders=held)
    return fault.text if fault else ""
