# SPDX-License-Identifier: Apache-2.0
"""A release built where no key is: everything but its place and its signature.

The same tree, arguments and published releases give the same file.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from updaterd import durable
from updaterd.core import layout
from updaterd.core.manifest import Manifest
from updaterd.errors import BrokenError
from updaterd.files import deletion
from updaterd.release import publish, workspace
from updaterd.release.build import Built
from updaterd.release.deltas import Progress
from updaterd.release.handover import file as release_files
from updaterd.release.handover.file import Content
from updaterd.release.handover.state import Listing, State
from updaterd.release.order import Added, Order, Planned, place, plan
from updaterd.release.workspace import Settings, Workspace
from updaterd.system import locks

Fetch = Callable[[str, int, Path], None]
"""Puts the published blob of this hash and length into a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """A release on one platform, as it was built."""

    manifest: Manifest
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


@contextmanager
def scratch(out: Path, settings: Settings) -> Iterator[Workspace]:
    """Yield an empty workspace beside the file that is made; it is gone afterwards.

    Args:
        out: the release file.
        settings: platform and deltas.

    Raises:
        TransientError: another build makes the same file.
        OSError: the disk refused.

    Power cut: `NAME.work` is left over; the next run empties it.
    """
    folder = out.with_name(f"{out.name}.work")
    durable.make_dir(folder, mode=0o700)
    with locks.hold(folder / "build.lock", subject=f"the build of {out}"):
        for path in folder.iterdir():
            if path.is_dir():
                deletion.delete_tree(path)
            elif path.name != "build.lock":
                path.unlink()
        workspace.create(folder, settings)
        try:
            yield Workspace(folder)
        finally:
            deletion.delete_tree(folder)


def examine(
    listing: Listing, orders: Sequence[Order], roots: Sequence[Path]
) -> list[Planned]:
    """Return what is to be built.

    Raises:
        RejectedError: no release may be made of it.
        BrokenError: all of it is published already, or something cannot be read.
    """
    plans = [
        plan(listing, root, order) for order, root in zip(orders, roots, strict=True)
    ]
    planned = [item for item in plans if not isinstance(item, Added)]
    if not planned:
        raise BrokenError(
            f"{orders[0].product} {orders[0].version} is published already, with the "
            "same contents",
            means="nothing was built",
            do="nothing; or build under a new version",
            code="release_exists",
        )
    return planned


def build(
    space: Workspace,
    planned: Planned,
    *,
    fetch: Fetch,
    progress: Progress | None = None,
) -> Built:
    """Build a release in a scratch workspace, and prove it.

    Raises:
        RejectedError: a bundle does not make the release.
        TransientError: a published bundle cannot be had.
        OSError: the disk refused.

    Power cut: as `scratch`.
    """
    for old in (*planned.previous, *(base for base, _ in planned.patches)):
        blob = space.blob(old.full.sha256)
        if not blob.exists():
            durable.make_dir(blob.parent)
            fetch(old.full.sha256, old.full.length, blob)
    return publish.build_planned(space, planned, progress=progress)


def draft(
    listing: Listing, planned: Sequence[Planned], built: Sequence[Built]
) -> list[Drafted]:
    """Return the manifests, as if they were signed now.

    Raises:
        RejectedError: an attestation is about something else.
    """
    orders = [item.order for item in planned]
    publish.check_attested(orders, built)
    return [
        Drafted(
            manifest=publish.manifest_of(order, release, place(listing, order)),
            skipped=release.skipped,
            notes=release.notes,
        )
        for order, release in zip(orders, built, strict=True)
    ]


def contents(
    space: Workspace, state: State, listing: Listing, drafts: Sequence[Drafted]
) -> list[Content]:
    """Return what a release file consists of.

    Raises:
        OSError: a blob cannot be read.
    """
    manifests = sorted((item.manifest for item in drafts), key=lambda m: m.platform)
    parts = [
        Content(kind=release_files.STATE, name=name, source=raw)
        for name, raw in sorted(state.files.items())
    ]
    bases = {
        digest: raw
        for manifest in manifests
        for digest, raw in bases_of(listing, manifest).items()
    }
    parts += [
        Content(kind=release_files.BASE, name="", source=bases[digest])
        for digest in sorted(bases)
    ]
    parts += [
        Content(
            kind=release_files.DRAFT,
            name=manifest.platform,
            source=manifest.encode(),
        )
        for manifest in manifests
    ]
    attested = {
        entry.sha256 for manifest in manifests for entry in manifest.attestations
    }
    parts += [
        Content(kind=release_files.ATTESTATION, name="", source=space.blob(digest))
        for digest in sorted(attested)
    ]
    blobs = {digest for manifest in manifests for digest in own_blobs(manifest)}
    parts += [
        Content(kind=release_files.BLOB, name="", source=space.blob(digest))
        for digest in sorted(blobs)
    ]
    return parts


def own_blobs(manifest: Manifest) -> Mapping[str, int]:
    """Return hash and length of the bundles that come with a release.

    Edges between earlier releases are published already.
    """
    tree = manifest.tree
    own = {edge.sha256: edge.length for edge in manifest.deltas if edge.to_tree == tree}
    return {manifest.full.sha256: manifest.full.length, **own}


def bases_of(listing: Listing, manifest: Manifest) -> Mapping[str, bytes]:
    """Return the published manifests that a release is judged by."""
    versions = {edge.from_version for edge in manifest.deltas}
    versions |= {edge.to_version for edge in manifest.deltas}
    # Who signs is shown what changed since the last one, delta or not.
    before = listing.newest(manifest.platform, 1, manifest.seq)
    versions |= {base.version for base in before}
    bases: dict[str, bytes] = {}
    for version in sorted(versions):
        entry = listing.find(version, manifest.platform)
        if entry is not None:
            raw = listing.loaded.get(entry.target.hashes["sha256"])
            if raw is not None:
                bases[hashlib.sha256(raw).hexdigest()] = raw
    return bases


def blob_from(public: Path) -> Fetch:
    """Return what copies blobs out of a copy of `public/`."""

    def fetch(digest: str, length: int, out: Path) -> None:
        state, done = hashlib.sha256(), 0
        path = public / layout.blob(digest)
        try:
            with path.open("rb") as file, out.open("wb") as copy:
                while done <= length and (piece := file.read(1 << 20)):
                    state.update(piece)
                    done += len(piece)
                    copy.write(piece)
        except FileNotFoundError as error:
            raise _no_bundle(path, "it is not there") from error
        if (state.hexdigest(), done) != (digest, length):
            raise _no_bundle(path, "it is damaged")

    return fetch


def _no_bundle(path: Path, why: str) -> BrokenError:
    return BrokenError(
        f"the bundle of an earlier release, {path}, cannot be used: {why}",
        means="no delta can be made from it",
        do="take a whole copy of public/; --deltas 0 makes none",
        code="repository_unreadable",
    )
