# SPDX-License-Identifier: Apache-2.0
"""By hand: compare the installed tree with its listing, and repair it.

Repair makes a whole new tree beside the damaged one (`reuse.py`) and swaps the two
directories in one step, or where that cannot be done, in several (`install/beside`).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from updaterd import durable
from updaterd.artifact.verify import Problem, damage, verify_tree
from updaterd.core import manifest as manifests
from updaterd.core.manifest import Manifest
from updaterd.core.recovery import Link
from updaterd.core.settings import Product
from updaterd.errors import BrokenError, RejectedError, UpdaterError
from updaterd.install import activate, beside, health, hooks, prune, stage
from updaterd.install.room import require
from updaterd.pipeline import byte_code, finish, pruning, reuse, room
from updaterd.pipeline.services import Services


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


def verify(product: Product, services: Services, *, repair: bool) -> Checked:
    """Compare the installed tree with its signed listing; with `repair`, mend it.

    Raises:
        BrokenError: nothing is installed, or no listing of it is known.
        TransientError: what is missing cannot be fetched now.
        RejectedError: the repository serves other bytes than were signed.
        OSError: the disk refused; the tree is as it was.

    Power cut: the damaged tree or the repaired one is installed, never a mixture.
    """
    root = Path(product.root)
    manifest, raw = _installed(product, services)
    all_found = verify_tree(
        stage.releases(root) / manifest.version, manifest.files, manifest.attributes
    )
    problems = damage(all_found, manifest.files)
    found = Checked(
        product=product.name,
        version=manifest.version,
        problems=problems,
        notes=(
            *(f"{p.path}: {p.what}" for p in all_found if p not in problems),
            *_stays(product, services),
        ),
    )
    if not problems or not repair:
        return found
    stage.require_ours(root, manifest.version)  # before anything is fetched
    if not byte_code.swept(
        stage.releases(root) / manifest.version,
        manifest.files,
        manifest.attributes,
        loose=False,
    ):
        return replace(found, repaired=True)
    received = services.fetcher.received
    _repair(product, manifest, raw, services)
    said = _restart(product, manifest.version, services)
    return replace(
        found,
        repaired=True,
        bytes_fetched=services.fetcher.received - received,
        notes=(*found.notes, *((said,) if said else ())),
    )


def _stays(product: Product, services: Services) -> tuple[str, ...]:
    """Return why releases beyond `keep` are still on disk."""
    order = tuple(r.version for r in services.journal.releases(product.name))
    held = pruning.held_by(product, services)
    old = prune.survey(Path(product.root), order, keep=product.keep, holders=held)
    return (
        *(f"old release {name} stays: {why}" for name, why in old.busy.items()),
        *(f"in the way: {obstacle}" for obstacle in old.stuck),
    )


def relink(product: Product, services: Services) -> tuple[str, ...]:
    """Put a `current` that a person replaced right; what stood there is kept."""
    root = Path(product.root)
    beside.finish(root)
    installed = services.journal.installed(product.name)
    kind = stage.look(root).current
    if installed is None or kind not in (Link.OCCUPIED, Link.FOREIGN):
        return ()
    current = root / "current"
    if kind is Link.FOREIGN:
        was = f"a link to {current.readlink()}"
        durable.point(current, Path("releases", installed.version))
    else:
        was = str(activate.displace(root, installed.version))
    return (f"`current` names {installed.version} again; what stood there: {was}",)


def _installed(product: Product, services: Services) -> tuple[Manifest, bytes]:
    """Return the signed listing of what is installed.

    Raises:
        BrokenError: there is none.
    """
    installed = services.journal.installed(product.name)
    raw = installed and services.journal.manifest_bytes(product.name, installed.version)
    if not installed or not raw:
        raise BrokenError(
            f"{product.name}: "
            + (
                f"no signed listing of {installed.version} is known"
                if installed
                else "nothing is installed"
            ),
            do=f"run `updaterd update {product.name}`",
            code="nothing_to_verify",
        )
    return manifests.parse(raw), raw


def _repair(
    product: Product, manifest: Manifest, raw: bytes, services: Services
) -> None:
    """Build the tree anew, from what is good here and what must be fetched.

    Raises:
        RejectedError: what was built is not what was signed.
    """
    root = Path(product.root)
    shared = frozenset[str]()
    if product.unchanged == "reflink":
        shared = room.shared_with(
            root, manifest.version, manifest.files, manifest, "reflink"
        )
    need = room.tree(root, manifest.version, manifest.files, shared)
    require([need], min_free=services.download.min_free)
    staging = stage.open_staging(root)
    try:
        missing = reuse.take_over(product, manifest, services, staging)
        if missing:
            reuse.fetch_missing(manifest, missing, services, staging)
        wrong = verify_tree(staging, manifest.files)
        if wrong:
            raise RejectedError(
                f"the repaired tree is not as signed: {wrong[0].path} {wrong[0].what}",
                code="bad_output",
            )
        finish.finish(staging, manifest)
        stage.commit(staging, root, manifest.version, raw)
    finally:
        stage.delete_tree(staging)


def _restart(product: Product, version: str, services: Services) -> str:
    """Restart onto the repaired tree; return what is still wrong, or nothing."""
    env = hooks.environment(
        product, version=version, from_version=version, trigger="repair"
    )
    try:
        services.manager.restart(product.units)
        said = health.fault(
            product.health,
            product.units,
            trusted=services.trusted,
            manager=services.manager,
            getter=services.fetcher,
            env=env,
        )
    except UpdaterError as error:
        return error.what
    order = tuple(r.version for r in services.journal.releases(product.name))
    held, keep = pruning.held_by(product, services), max(product.keep, len(order))
    prune.prune(Path(product.root), order, keep=keep, holders=held)
    return said
