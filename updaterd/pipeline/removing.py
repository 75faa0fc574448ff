# SPDX-License-Identifier: Apache-2.0
"""Take a product off this machine, because a person ordered it.

The order is a deployment of its own kind, journalled together with a hold before
anything is touched: whatever run comes next finishes it, and none installs the product
again until the person ends the hold. The end of it, that nothing is installed any more,
is one transaction again.
"""

from contextlib import suppress
from dataclasses import field

from updaterd.core.dataclass import dataclass
from updaterd.core.settings import ITSELF
from updaterd.errors import BrokenError, UpdaterError
from updaterd.files.volumes import Obstacle
from updaterd.install import prune, stage
from updaterd.install.restart_systemd import RefusedError
from updaterd.pipeline.run import Run
from updaterd.pipeline.tree import cache, uninstall
from updaterd.store.journal import Deployment, Release

TRIGGER = "remove"
"""What started such a deployment, as the journal says it."""
_CODE = "removed"
_HOLD = "removed by hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a removal did.

    Attributes:
        version: what was installed; None: nothing was.
        others: what is left in the product's root, which is not updaterd's.
        notes: what else a person should know.
    """

    product: str
    version: str | None
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def order(run: Run) -> Deployment:
    """Journal that a person wants the product gone; return the order.

    Raises:
        BrokenError: it is updaterd itself.

    Power cut: it is ordered, and the next run carries it out, or it is not.
    """
    if run.name == ITSELF:
        raise BrokenError(
            "updaterd does not remove itself",
            means="its releases are what removes all others",
            do="remove its package",
            code="not_removable",
        )
    journal = run.journal
    before = journal.open_deployment(run.name)
    if before is not None and before.trigger == TRIGGER:
        return before
    installed = journal.installed(run.name)
    running = stage.look(run.root).running
    release = (
        Release(installed.version, installed.seq, installed.tree)
        if installed
        else Release(running or "nothing", 0, "")
    )
    note = run.note(_CODE, f"{release.version}: {_HOLD}")
    ident = journal.order_removal(
        run.name, run.product.channel, release, TRIGGER, note, hold=_HOLD
    )
    return journal.deployment(ident)


def is_ordered(deployment: Deployment | None) -> bool:
    """Tell whether an open deployment is such an order."""
    return deployment is not None and deployment.trigger == TRIGGER


def finish(run: Run, deployment: Deployment) -> Removed:
    """Carry out what a person ordered, from wherever it stands.

    Raises:
        _stuck: something is mounted in it, or cannot be deleted.
        UpdaterError: a unit does not stop.
        OSError: the disk refused.

    Power cut: `current` is there with all of its release, or the product does not
        start any more; the next run goes on.
    """
    stopped = _stop(run)
    for unit in stopped:
        run.say(f"stopped {unit}")
    busy = _still_running(run)
    obstacles = uninstall.remove(run.root)
    if obstacles:
        raise _stuck(run, obstacles)
    cache.clear(run)
    with suppress(OSError):
        (run.services.cache / "bundles" / run.name).rmdir()
    run.journal.end_removal(deployment.id, run.note(_CODE, deployment.reason))
    return Removed(
        product=run.name,
        version=deployment.from_version,
        others=uninstall.others(run.root),
        notes=busy,
    )


def _stop(run: Run) -> list[str]:
    """Stop the product's units that systemd has; return which.

    Raises:
        UpdaterError: one does not stop.
        RefusedError: this user may not stop it.
    """
    manager = run.services.manager
    stopped = []
    for unit in run.product.units:
        known = manager.properties(unit, "ActiveState")
        if known.get("ActiveState") in ("inactive", "failed"):
            continue  # also one that systemd does not have
        try:
            manager.stop([unit])
        except RefusedError:
            raise
        except UpdaterError as error:
            raise UpdaterError(
                error.cause,
                means=f"{run.name} still runs; nothing of it was deleted",
                do=error.do,
                code="not_stopped",
            ) from error
        stopped.append(unit)
    return stopped


def _still_running(run: Run) -> tuple[str, ...]:
    """Return who still runs the product: a person should end it."""
    used = prune.in_use(run.root)
    if used.counting or used.others or used.everything or used.others_everything:
        return ("a process still runs it; end it, it has its files until then",)
    return ()


def _stuck(run: Run, obstacles: tuple[Obstacle, ...]) -> BrokenError:
    more = f" (and {len(obstacles) - 1} more)" if obstacles[1:] else ""
    return BrokenError(
        f"{run.name} cannot be removed: {obstacles[0]}{more}",
        means="updaterd touches no other file system; the rest is removed by the "
        "next run",
        do=f"unmount it or move it away, then run `updaterd remove {run.name}` again",
        code="in_the_way",
    )
