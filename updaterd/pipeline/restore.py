"""By hand: compare and repair the installed tree, and return to the previous one.

Repair makes a whole new tree beside the damaged one and swaps the two directories in
one step. Good files are taken over from the damaged tree, missing ones from other
releases on this disk, and only what is nowhere here is fetched: the frames of the
full bundle that hold it, by Range.
"""

import os
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from updaterd import durable
from updaterd.artifact import sandbox, unpack
from updaterd.artifact.folders import Folders
from updaterd.artifact.output import Destination
from updaterd.artifact.verify import Problem, verify_tree
from updaterd.core import manifest as manifests
from updaterd.core.lifecycle import State
from updaterd.core.manifest import File, Manifest
from updaterd.core.recovery import Link
from updaterd.core.settings import Product
from updaterd.errors import BrokenError, RejectedError, TransientError, UpdaterError
from updaterd.install import activate, health, hooks, prune, stage
from updaterd.pipeline import trial
from updaterd.pipeline.services import Outcome, Services
from updaterd.store.journal import Release

_HEAD = 64 * 1024


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
    problems = verify_tree(stage.releases(root) / manifest.version, manifest.files)
    found = Checked(
        product=product.name,
        version=manifest.version,
        problems=problems,
    )
    if not problems or not repair:
        return found
    received = services.fetcher.received
    _repair(product, manifest, raw, services)
    said = _restart(product, manifest.version, services)
    return replace(
        found,
        repaired=True,
        bytes_fetched=services.fetcher.received - received,
        notes=(said,) if said else (),
    )


def relink(product: Product, services: Services) -> tuple[str, ...]:
    """Put a `current` that a person replaced right; what stood there is kept."""
    root = Path(product.root)
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
    stage.check_room(stage.private(root), manifest, 0, services.download.min_free)
    staging = stage.open_staging(root)
    try:
        missing = take_over(product, manifest, services, staging)
        if missing:
            fetch_missing(manifest, missing, services, staging)
        wrong = verify_tree(staging, manifest.files)
        if wrong:
            raise RejectedError(
                f"the repaired tree is not as signed: {wrong[0].path} {wrong[0].what}",
                code="bad_output",
            )
        stage.commit(staging, root, manifest.version, raw)
    finally:
        stage.delete_tree(staging)


def take_over(
    product: Product, manifest: Manifest, services: Services, staging: Path
) -> frozenset[str]:
    """Fill `staging` from the trees on this disk; return the paths found nowhere."""
    root = Path(product.root)
    sources = _sources(product, manifest, services)
    missing = []
    with closing(Destination(staging)) as destination:
        for entry in manifest.files:
            if not isinstance(entry, File):
                destination.symlink(entry.path, entry.target)
                continue
            for version, old in sources.get(entry.sha256, ()):
                with Folders(stage.releases(root) / version) as folders:
                    # never by hard link: the copy here may be the one that an
                    # application writes into
                    how = "reflink" if product.unchanged == "reflink" else "copy"
                    if destination.share(folders, old, entry.path, entry.mode, how):
                        break
            else:
                missing.append(entry.path)
    return frozenset(missing)


def _sources(
    product: Product, manifest: Manifest, services: Services
) -> dict[str, list[tuple[str, File]]]:
    """Return where each content should lie on this disk, by sha256."""
    whole = stage.look(Path(product.root)).whole
    listings = {manifest.version: manifest.files}
    for release in services.journal.releases(product.name):
        raw = services.journal.manifest_bytes(product.name, release.version)
        if raw and release.version not in listings:
            listings[release.version] = manifests.parse(raw).files
    found: dict[str, list[tuple[str, File]]] = {}
    for version, files in listings.items():
        for entry in files:
            if isinstance(entry, File) and version in whole:
                found.setdefault(entry.sha256, []).append((version, entry))
    return found


def fetch_missing(
    manifest: Manifest, missing: frozenset[str], services: Services, staging: Path
) -> None:
    """Fetch only the parts of the full bundle that hold `missing`, and unpack them.

    Raises:
        TransientError: no server could be asked.
        RejectedError: what came is not what was signed.

    Power cut: the sparse file in the cache is made anew by the next call.
    """
    full = manifest.full
    sparse = services.cache / "bundles" / f"{full.sha256}.sparse"
    sparse.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    failure: UpdaterError | None = None
    for base in services.bases:
        url = f"{base}/blobs/sha256/{full.sha256[:2]}/{full.sha256}"
        try:
            with sparse.open("wb") as file:
                file.truncate(full.length)
                _copy_range(services, url, file.fileno(), 0, min(_HEAD, full.length))
                file.flush()
                head = sparse.read_bytes()[:_HEAD]
                spans = unpack.ranges(head, full.length, manifest.files, missing)
                for low, high in spans:
                    _copy_range(services, url, file.fileno(), low, high)
            sandbox.run(
                sandbox.Job(
                    kind="full",
                    codec=full.codec,
                    bundle=sparse,
                    bundle_sha256=full.sha256,
                    bundle_length=full.length,
                    destination=staging,
                    files=manifest.files,
                    tree=manifest.tree,
                    only=missing,
                    partial=True,
                )
            )
        except UpdaterError as error:
            failure = error
        else:
            return
        finally:
            sparse.unlink(missing_ok=True)
    raise failure or TransientError("no server to fetch from", code="unreachable")


def _copy_range(services: Services, url: str, fd: int, low: int, high: int) -> None:
    """Write bytes [low, high) of `url` to the same place of a file.

    Raises:
        TransientError: the server cannot serve a range, or the answer is too short.
    """
    at = low
    with services.fetcher.stream(url, start=low) as answer:
        if low and answer.status != 206:
            raise TransientError(f"{url:.200}: no ranges there", code="bad_range")
        for chunk in answer.chunks:
            piece = chunk[: high - at]
            os.pwrite(fd, piece, at)
            at += len(piece)
            services.teller.progress(
                "downloading what is missing", at - low, high - low
            )
            if at >= high:
                return
    raise TransientError(f"{url:.200} ended early", code="short_answer")


def _restart(product: Product, version: str, services: Services) -> str:
    """Restart onto the repaired tree; return what is still wrong, or nothing."""
    env = hooks.environment(
        product, version=version, from_version=version, trigger="repair"
    )
    try:
        services.manager.restart(product.units)
    except UpdaterError as error:
        return error.what
    said = health.fault(
        product.health,
        product.units,
        manager=services.manager,
        getter=services.fetcher,
        env=env,
    )
    order = tuple(r.version for r in services.journal.releases(product.name))
    prune.prune(Path(product.root), order, keep=max(product.keep, len(order)))
    return said


def roll_back(product: Product, services: Services) -> Outcome:
    """Return to the previous release, offline; what runs now is blocked.

    It goes through the same trial as an update: a previous release that is not well
    is left again.

    Raises:
        BrokenError: there is nothing to return to, or it is damaged.
        RejectedError: the previous release is below the signed floor.
        UpdaterError: a hook said no.
        OSError: the disk refused; what runs now goes on running.

    Power cut: as an update in the same state.
    """
    journal, name, root = services.journal, product.name, Path(product.root)
    installed = journal.installed(name)
    target = _previous(product, services)
    if installed is None or target is None:
        raise BrokenError(
            f"{name}: no earlier release is on disk",
            do="publish an older release to the channel, or raise `keep`",
            code="nothing_to_return_to",
        )
    floor = journal.product(name).seq_floor
    if target.seq < floor:
        raise RejectedError(
            f"{name} {target.version} (seq {target.seq}) is below the floor {floor}",
            means="its publisher forbade going back there, for security",
            code="below_floor",
        )
    raw = journal.manifest_bytes(name, target.version) or b""
    if raw:
        wrong = verify_tree(
            stage.releases(root) / target.version, manifests.parse(raw).files
        )
        if wrong:
            raise BrokenError(
                f"{name} {target.version} is damaged: {wrong[0].path} {wrong[0].what}",
                means="returning to it could be worse than staying",
                do="publish a release that works",
                code="previous_damaged",
            )
    return _return(
        product,
        services,
        Release(installed.version, installed.seq, installed.tree),
        target,
        raw,
    )


def _previous(product: Product, services: Services) -> Release | None:
    """Return the release to go back to: `previous`, or an older one that ran well."""
    disk = stage.look(Path(product.root))
    bad = services.journal.failed(product.name)
    listed = {r.version: r for r in services.journal.releases(product.name)}
    ran = [
        row.version
        for row in services.journal.history(product.name, limit=100)
        if row.state is State.INSTALLED
    ]
    for version in (disk.previous, *ran):
        usable = version in disk.whole and version != disk.running
        if version and usable and version not in bad:
            return listed.get(version, Release(version, 0, ""))
    return None


def _return(
    product: Product,
    services: Services,
    installed: Release,
    target: Release,
    raw: bytes,
) -> Outcome:
    journal, name = services.journal, product.name
    open_ = journal.open_deployment(name)
    reason = f"rolled back by hand from {installed.version} to {target.version}"
    note = services.note("rolled_back_by_hand", reason)
    if open_ is not None:
        journal.move(open_.id, State.SKIPPED, note)
    ident = journal.begin(name, product.channel, target, "manual", note)
    journal.move(ident, State.PLANNED, note)
    journal.stage(ident, raw, target.tree, note)
    journal.block(name, installed, note)
    try:
        outcome = trial.perform(product, journal.deployment(ident), services)
    except UpdaterError as error:
        if journal.deployment(ident).state is State.STAGED:
            journal.move(ident, State.FAILED, services.note(error.code, error.what))
            journal.unblock(name, installed.version)
        raise
    if outcome.result == "rolled_back":
        journal.unblock(name, installed.version)  # it runs again, after all
        return outcome
    journal.remember(name, decision="rolled_back_by_hand", decision_reason=reason)
    return replace(
        outcome, result="installed", code="rolled_back_by_hand", reason=reason
    )
