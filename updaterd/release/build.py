"""One release, made from a directory: listing, full bundle, deltas, manifest.

Blobs are named by their content, so making them again after an interruption writes
the same files again and nothing else.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from updaterd import durable
from updaterd.core.deltas import BSDIFF
from updaterd.core.manifest import Delta, Entry, Full, Manifest, tree_id
from updaterd.errors import UpdaterError
from updaterd.release import bundle, deltas, patches, tree
from updaterd.release.workspace import Workspace

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, out of how much."""

CARRIED = 2
"""Of the edges made, one in this many is carried over from an earlier manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """All of a release but its place in the order, which signing gives it."""

    files: tuple[Entry, ...]
    full: Full
    deltas: tuple[Delta, ...]
    skipped: tuple[str, ...] = ()

    @property
    def tree(self) -> str:
        """Return the tree id."""
        return tree_id(self.files)


def scan(root: Path) -> tuple[Entry, ...]:
    """Return the closed listing of a directory.

    Raises:
        RejectedError: it holds something that no release may hold.
    """
    return tree.scan(root)


def build(  # noqa: PLR0913
    workspace: Workspace,
    root: Path,
    files: tuple[Entry, ...],
    *,
    version: str,
    previous: Sequence[Manifest],
    given: Sequence[tuple[Manifest, Path]] = (),
    progress: Progress | None = None,
) -> Built:
    """Return the release made from `root`; its blobs are in place afterwards.

    Args:
        workspace: where blobs go and earlier ones are.
        root: the directory.
        files: its listing.
        version: label of the new release.
        previous: manifests of the releases to make deltas from, newest first.
        given: `BSDIFF40` patches made elsewhere, and the manifest each starts from.
        progress: is told how far it is.

    Raises:
        RejectedError: the directory changed meanwhile, or a given patch does not
            make this release.
        OSError: the disk refused.

    Power cut: blobs are whole or absent; `work/` is swept by the next run.
    """
    with tempfile.TemporaryDirectory(dir=workspace.work) as scratch:
        work = Path(scratch)
        made = bundle.build_full(root, files, work / "full", progress=progress)
        _settle(workspace, work / "full", made.sha256)
        edges: list[Delta] = []
        skipped: list[str] = []
        for number, (old, patch) in enumerate(given):
            folder = work / f"given{number}"
            folder.mkdir()
            edge = patches.take(workspace, folder, patch, old, files, version)
            if edge.length < made.length:
                _settle(workspace, folder / "patch", edge.sha256)
                edges.append(edge)
            else:
                skipped.append(f"{old.version}: {patch} is not smaller than the whole")
        for number, old in enumerate(previous, 1):
            what = f"delta {number} of {len(previous)}, from {old.version}"
            if old.tree == tree_id(files):
                continue
            try:
                edge = _delta(
                    workspace, work, old, root, files, version, what, progress
                )
            except UpdaterError as error:
                # A delta is a convenience: the full bundle serves these machines.
                skipped.append(f"{old.version}: {error.what}")
                continue
            if edge.length < made.length:
                _settle(workspace, work / "delta", edge.sha256)
                edges.append(edge)
            else:
                skipped.append(f"{old.version}: not smaller than the full bundle")
    return Built(
        files=files,
        full=made,
        deltas=(*edges, *carried_over(edges, previous)),
        skipped=tuple(skipped),
    )


def _delta(  # noqa: PLR0913, PLR0917
    workspace: Workspace,
    work: Path,
    old: Manifest,
    root: Path,
    files: tuple[Entry, ...],
    version: str,
    what: str,
    progress: Progress | None,
) -> Delta:
    before = work / "before"
    try:
        before.mkdir()
        bundle.unpack(workspace.blob(old.full.sha256), old.full, old.files, before)

        def report(_what: str, done: int, total: int) -> None:
            if progress is not None:
                progress(what, done, total)

        return deltas.build_delta(
            before,
            old.files,
            root,
            files,
            work / "delta",
            from_version=old.version,
            to_version=version,
            progress=report,
        )
    finally:
        shutil.rmtree(before, ignore_errors=True)


def carried_over(
    edges: Sequence[Delta], previous: Sequence[Manifest]
) -> tuple[Delta, ...]:
    """Return edges of earlier manifests that lead older releases to the new ones.

    A machine too old for a direct edge goes to the oldest release that has one, by
    the edge which that release's own manifest lists. One way for each, so that the
    manifest stays small.
    """
    direct = {edge.from_tree for edge in edges}
    reached = set(direct)
    found: list[Delta] = []
    room = len(previous) // CARRIED
    for manifest in reversed(previous):
        if manifest.tree not in direct:
            continue
        for edge in manifest.deltas:
            if len(found) >= room:
                return tuple(found)
            if edge.codec == BSDIFF:
                continue  # it cannot be followed by another one
            if edge.to_tree == manifest.tree and edge.from_tree not in reached:
                reached.add(edge.from_tree)
                found.append(edge)
    return tuple(found)


def _settle(workspace: Workspace, made: Path, digest: str) -> None:
    final = workspace.blob(digest)
    if final.exists():
        os.utime(final)  # young again: garbage collection leaves it alone
    else:
        durable.settle(made, final)
