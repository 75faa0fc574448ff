# SPDX-License-Identifier: Apache-2.0
"""Smaller forms of the manifests of what a channel offers.

Made by the same code as the bundles of releases: a tree of one file, whole or as a
delta from a manifest that machines have, which are those of the releases that deltas
start from (docs/decisions/0042).
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from updaterd import durable
from updaterd.core import forms as wire
from updaterd.core.channel import ChannelPointer
from updaterd.core.forms import LEAST, MAX_FORMS, MAX_MANIFESTS, Form, Forms
from updaterd.core.manifest import File, Manifest
from updaterd.errors import BrokenError
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles import full as full_bundle
from updaterd.release.repository.catalog import Catalog
from updaterd.release.repository.releases import Listed
from updaterd.release.workspace import Workspace

_WORTH = 0.9
"""Of the manifest, or of its whole form: what a form may have at most."""


def carried(
    workspace: Workspace, catalog: Catalog, pointer: ChannelPointer
) -> ChannelPointer:
    """Return a pointer that names forms of what it offers; their blobs are in place.

    Forms that it names already stay as they are; those of what it does not offer any
    more go. Only while the workspace is locked.

    Raises:
        BrokenError: a manifest cannot be read.
        OSError: the disk refused.

    Power cut: blobs are whole or absent; nothing refers to them yet.
    """
    known = {forms.sha256: forms for forms in pointer.manifests}
    named = []
    for entry in _offered(catalog, pointer):
        digest = entry.target.hashes["sha256"]
        forms = known.get(digest)
        if forms is None:
            forms = Forms(
                version=entry.version,
                platform=entry.platform,
                sha256=digest,
                forms=_forms_of(workspace, catalog, entry),
            )
        if forms.forms:
            named.append(forms)
    return replace(pointer, manifests=tuple(named[:MAX_MANIFESTS]))


def _offered(catalog: Catalog, pointer: ChannelPointer) -> Iterator[Listed]:
    """Yield what machines may fetch the manifest of, if that is not a short one."""
    platforms_of_version: dict[str, tuple[str, ...] | None] = {}
    platforms_of_version |= {stone.version: stone.platforms for stone in pointer.stones}
    platforms_of_version |= {
        offer.version: offer.platforms for offer in pointer.releases
    }
    for entry in catalog.listed():
        platforms = platforms_of_version.get(entry.version, ())
        if entry.target.length >= LEAST and (
            platforms is None or entry.platform in platforms
        ):
            yield entry


def _forms_of(
    workspace: Workspace, catalog: Catalog, entry: Listed
) -> tuple[Form, ...]:
    """Return the forms of one manifest.

    Raises:
        BrokenError: it cannot be read.
        OSError: the disk refused.

    Power cut: as `carried`.
    """
    manifest = catalog.manifest(entry)
    # nobody sweeps it: the workspace is locked
    with tempfile.TemporaryDirectory(dir=workspace.work) as folder:
        work = Path(folder)
        new, listing = _tree(work / "new", catalog, entry)
        whole = full_bundle.build_full(new, listing, work / "full")
        if whole.length > _WORTH * entry.target.length:
            return ()
        _settle(workspace, work / "full", whole.sha256)
        forms = [Form(sha256=whole.sha256, length=whole.length, codec=whole.codec)]
        for number, base in enumerate(_bases(catalog, manifest)):
            old, before = _tree(work / f"old{number}", catalog, base)
            path = work / f"delta{number}"
            delta = delta_bundle.build_delta(
                old,
                before,
                new,
                listing,
                path,
                from_version=base.version,
                to_version=entry.version,
            )
            if delta.length < _WORTH * whole.length:
                _settle(workspace, path, delta.sha256)
                forms.append(
                    Form(
                        sha256=delta.sha256,
                        length=delta.length,
                        codec=delta.codec,
                        base=base.target.hashes["sha256"],
                    )
                )
    return tuple(forms)


def _tree(
    folder: Path, catalog: Catalog, entry: Listed
) -> tuple[Path, tuple[File, ...]]:
    """Return a folder that holds one manifest, and its listing.

    Raises:
        OSError: the disk refused.
    """
    file = wire.file(entry.target.hashes["sha256"], entry.target.length)
    folder.mkdir()
    (folder / file.path).write_bytes(catalog.path(entry.target).read_bytes())
    return folder, (file,)


def _bases(catalog: Catalog, manifest: Manifest) -> Iterator[Listed]:
    """Yield the releases that machines come from, and whose manifests they have."""
    tree, count = manifest.tree, 0
    for version in dict.fromkeys(
        edge.from_version for edge in manifest.deltas if edge.to_tree == tree
    ):
        base = catalog.find(version, manifest.platform)
        if base is not None and count < MAX_FORMS - 1:
            try:
                catalog.manifest(base)
            except BrokenError:
                continue
            count += 1
            yield base


def _settle(workspace: Workspace, path: Path, digest: str) -> None:
    """Put a blob into its place.

    Raises:
        OSError: the disk refused.

    Power cut: it is whole or absent.
    """
    durable.settle(path, workspace.blob(digest))
