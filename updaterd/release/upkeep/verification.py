# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a repository: signatures, manifests, blobs, channels."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from updaterd.artifact import classic
from updaterd.core import layout
from updaterd.core.bundle_kinds import ARCHIVES, ARM
from updaterd.core.manifest import Delta, Manifest
from updaterd.errors import UpdaterError
from updaterd.files import deletion
from updaterd.release import attestations
from updaterd.release.bundles import proof
from updaterd.release.bundles.full import unpack
from updaterd.release.repository.catalog import Catalog, products
from updaterd.release.repository.metadata import Repository
from updaterd.release.repository.published import versions
from updaterd.release.workspace import Workspace


def verify(workspace: Workspace, repository: Repository, *, deep: bool) -> list[str]:
    """Return what is wrong with a repository, as a client would meet it and beyond.

    Args:
        workspace: where the files are.
        repository: what they say.
        deep: also hash every blob, not only look for it, and apply it (`proof`).
    """
    problems = list(_chain(workspace.metadata))
    for name in repository.roles:
        problems.extend(_signed(repository, name))
    for product in products(repository):
        catalog = Catalog(repository, workspace.public, product)
        for entry in catalog.listed():
            try:
                manifest = catalog.manifest(entry)
            except UpdaterError as error:
                problems.append(error.cause)
                continue
            for blob in manifest.blobs:
                problems.extend(_blob(workspace, blob.sha256, blob.length, deep=deep))
            problems.extend(attestations.wrong(workspace, manifest))
        for channel in catalog.channels():
            problems.extend(_offers(catalog, channel))
            for form in catalog.forms(channel):
                problems.extend(_blob(workspace, form.sha256, form.length, deep=deep))
        if deep and not problems:
            problems.extend(_unproven(workspace, catalog))
    return list(dict.fromkeys(problems))


def _chain(folder: Path) -> Iterator[str]:
    """Walk the roots as a machine does that was given the first."""
    before: Root | None = None
    version = 1
    while (path := folder / layout.role_file("root", version)).exists():
        try:
            metadata: Metadata[Root] = Metadata.from_bytes(path.read_bytes())
            for judge in (before, metadata.signed):
                if judge is not None:
                    judge.verify_delegate(
                        "root", metadata.signed_bytes, metadata.signatures
                    )
            before = metadata.signed
        except (RepositoryError, OSError) as error:
            yield f"{path}: {error}"
            return
        version += 1
    newest = max(versions(folder, "root"), default=0)
    if version - 1 != newest:
        yield f"root {version} is missing, machines cannot get to {newest}"


def _signed(repository: Repository, name: str) -> Iterator[str]:
    metadata: Metadata[Any] = repository.roles[name]
    judge: Root | Targets = repository.root
    if name not in repository.root.roles:
        judge = repository.targets()
    try:
        judge.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        yield f"{name}: {error}"


def _blob(
    workspace: Workspace, digest: str, length: int, *, deep: bool
) -> Iterator[str]:
    path = workspace.blob(digest)
    try:
        if path.stat().st_size != length:
            yield f"{path} has {path.stat().st_size} bytes, signed are {length}"
        elif deep:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    yield f"{path} is damaged"
    except OSError as error:
        yield f"{path}: {error.strerror}"


def _unproven(workspace: Workspace, catalog: Catalog) -> Iterator[str]:
    """Apply what is published, each delta from the release that it starts from."""
    manifests = [catalog.manifest(entry) for entry in catalog.listed()]
    done: set[tuple[Delta, str]] = set()  # a later release carries earlier ones' edges
    with workspace.scratch() as work:
        for manifest in manifests:
            where = f"{manifest.product} {manifest.version} ({manifest.platform})"
            prover = proof.Prover(work, min_updater=manifest.min_updater)
            try:
                bundle = workspace.blob(manifest.full.sha256)
                prover.full(bundle, manifest.full, manifest.files)
            except UpdaterError as error:
                yield f"{where}: {error.cause}"
            for edge in manifest.deltas:
                if (edge, manifest.min_updater) not in done:
                    done.add((edge, manifest.min_updater))
                    yield from _edge(workspace, work, prover, manifests, edge, where)


def _edge(  # noqa: PLR0913, PLR0917 - an edge has two ends
    workspace: Workspace,
    work: Path,
    prover: proof.Prover,
    manifests: Sequence[Manifest],
    edge: Delta,
    where: str,
) -> Iterator[str]:
    ends = {manifest.tree: manifest for manifest in manifests}
    old, new = ends.get(edge.from_tree), ends.get(edge.to_tree)
    if old is None or new is None:
        return  # of a release that is listed no more
    is_beside = edge.codec.startswith((ARCHIVES, ARM))
    if edge.codec.startswith(ARCHIVES) and not classic.is_here():
        return  # no machine like this one is given it; its hash was compared
    before = work / "before"
    try:
        unpack(workspace.blob(old.full.sha256), old.full, old.files, before)
        delta = workspace.blob(edge.sha256)
        prover.delta(delta, edge, before, old.files, new.files, beside=is_beside)
    except UpdaterError as error:
        yield f"{where}: {error.cause}"
    finally:
        deletion.delete_tree(before)


def _offers(catalog: Catalog, channel: str) -> Iterator[str]:
    pointer = catalog.pointer(channel)
    for offer in pointer.releases:
        if catalog.find(offer.version) is None:
            yield (
                f"{pointer.product}/{channel} offers {offer.version}, "
                "which no release key signed"
            )
