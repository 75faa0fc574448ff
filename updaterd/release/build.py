# SPDX-License-Identifier: Apache-2.0
"""One release, made from a directory: listing, full bundle, deltas, manifest.

Blobs are named by their content, so making them again after an interruption writes
the same files again and nothing else.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from updaterd import durable
from updaterd.core.attestation import Attestation
from updaterd.core.attributes import NONE, Attributes
from updaterd.core.bundle_kinds import BSDIFF, FIRST, PRIMED
from updaterd.core.manifest import Delta, Entry, File, Full, Manifest, tree_id
from updaterd.errors import BrokenError, RejectedError, TransientError, UpdaterError
from updaterd.files import deletion
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles import full as full_bundle
from updaterd.release.bundles import proof, supplied
from updaterd.release.bundles.packing import exchange
from updaterd.release.bundles.pool import BUDGET, Pool
from updaterd.release.bundles.programs import elf
from updaterd.release.bundles.programs import matching as program_matching
from updaterd.release.workspace import Workspace

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, out of how much."""

Maker = Callable[..., Delta]
"""Makes a delta: `bundles.delta.build_delta`."""

OtherMaker = Callable[..., Delta | None]
"""Makes one that is offered beside it, if there is any: `bundles.delta.build_arm`,
`build_inflated`, `build_primed`."""

_WORTH = 0.95
"""Of another delta's bytes: what sees more in files costs machines more CPU."""
_ENTRY = 330
"""Bytes of the manifest that naming another delta takes, which every machine reads."""
_ARM, _INFLATED, _PRIMED = "AArch64", "inflated", "primed"

_LARGER = (
    "deltas of programs are larger than they could be, often by several times: "
    "updaterd was installed here without its compiled module (use a wheel, or have "
    "gcc and Python's headers when pip installs it)"
)

CARRIED = 2
"""Of the edges made, one in this many is carried over from an earlier manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """All of a release but its place in the order, which signing gives it.

    Attributes:
        files: listing.
        full: its full bundle.
        deltas: edges to it, and the ones that lead to those.
        skipped: releases without an edge, and why.
        notes: what the publisher should know beside that.
        attributes: what is carried beside the listing.
        attestations: those about it.
    """

    files: tuple[Entry, ...]
    full: Full
    deltas: tuple[Delta, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    attributes: Attributes = NONE
    attestations: tuple[Attestation, ...] = ()

    @property
    def tree(self) -> str:
        """Return the tree id."""
        return tree_id(self.files)


def build(  # noqa: PLR0913 - all that a push is told
    workspace: Workspace,
    root: Path,
    files: tuple[Entry, ...],
    *,
    version: str,
    previous: Sequence[Manifest],
    patches: Sequence[tuple[Manifest, Path]] = (),
    min_updater: str = FIRST,
    strict: bool = False,
    memory: int | None = None,
    rate: int = exchange.BALANCED,
    keep: bool = True,
    progress: Progress | None = None,
    make: Maker = delta_bundle.build_delta,
    workers: proof.Commands | None = None,
    make_arm: OtherMaker = delta_bundle.build_arm,
    make_inflated: OtherMaker = delta_bundle.build_inflated,
) -> Built:
    """Return the release made from `root`; its blobs are in place afterwards.

    Args:
        workspace: where blobs go and earlier ones are.
        root: the directory.
        files: its listing.
        version: label of the new release.
        previous: manifests of the releases to make deltas from, newest first.
        patches: `BSDIFF40` files made elsewhere, and the manifest each starts from.
        min_updater: the oldest updaterd that is to read it.
        strict: fail where a delta is not proven, instead of going on without it.
        memory: bytes that making bundles may take, about; None: `pool.BUDGET`.
        rate: bytes that a millisecond of a machine's CPU is worth.
        keep: put the blobs in place; a dry run does not.
        progress: is told how far it is; by other threads too, one at a time.
        make: makes a delta; what it makes is proven.
        workers: how to start what proves it (`proof.commands`).
        make_arm: makes one with AArch64 programs re-aimed, which is offered beside the
            other; proven too.
        make_inflated: as that, one that looks into archives.

    Raises:
        RejectedError: the directory changed meanwhile, or a bundle does not make
            this release when it is applied (`bundles.proof`).
        TransientError: this machine has no room or memory to make or prove a delta.
        OSError: the disk refused.

    Power cut: blobs are whole or absent; `work/` is swept by the next run.
    """
    put = partial(settle, workspace) if keep else _leave
    with workspace.scratch() as work, ThreadPoolExecutor(1) as beside:
        pool = Pool(budget=BUDGET if memory is None else memory, rate=rate)
        full = full_bundle.build_full(
            root, files, work / "full", progress=progress, budget=pool.budget
        )
        prover = proof.Prover(work, min_updater=min_updater, workers=workers, pool=pool)
        proven = beside.submit(prover.full, work / "full", full, files)
        edges: list[Delta] = []
        skipped: list[str] = []
        for number, (old, patch) in enumerate(patches):
            folder = work / f"given{number}"
            folder.mkdir()
            blob = workspace.blob(old.full.sha256)
            edge = supplied.take(blob, folder, patch, old, files, version, prover)
            if edge.length < full.length:
                put(folder / "patch", edge.sha256)
                edges.append(edge)
            else:
                skipped.append(f"{old.version}: {patch} is not smaller than the whole")
        bases = [old for old in previous if old.tree != tree_id(files)]
        deltas = _Deltas(
            workspace,
            work,
            root,
            files,
            version,
            bases,
            full.length,
            progress,
            make,
            {
                _ARM: make_arm,
                _INFLATED: make_inflated,
                _PRIMED: delta_bundle.build_primed,
            },
            prover,
            pool,
        )
        for old, got in zip(bases, deltas.make(), strict=True):
            if isinstance(got, UpdaterError):
                if strict and got.code == "not_proven":
                    raise got
                # A delta is a convenience: the full bundle serves these machines.
                skipped.append(f"{old.version}: {got.cause}")
                continue
            for name, refused in got.refused.items():
                if strict and refused.code == "not_proven":
                    raise refused
                skipped.append(f"{old.version}, {name}: {refused.cause}")
            fitting = [(p, e) for p, e in got.edges if e.length < full.length]
            for path, edge in fitting:
                put(path, edge.sha256)
                edges.append(edge)
            if not fitting:
                skipped.append(f"{old.version}: not smaller than the full bundle")
        proven.result()
        put(work / "full", full.sha256)
    return Built(
        files=files,
        full=full,
        deltas=(*edges, *carried_over(edges, previous)),
        skipped=tuple(skipped),
        notes=_notes(root, files) if edges else (),
    )


def _notes(root: Path, files: Sequence[Entry]) -> tuple[str, ...]:
    """Return what is worth to know about deltas that were made."""
    if program_matching.compiled() is None and any(
        isinstance(entry, File) and entry.length and elf.is_one(root / entry.path)
        for entry in files
    ):
        return (_LARGER,)
    return ()


@dataclass(frozen=True, slots=True)
class _Made:
    """The deltas from one release: where each lies.

    Attributes:
        edges: the plain one, then what is offered beside it.
        refused: by name, why there is no such one, where one was tried.
    """

    edges: tuple[tuple[Path, Delta], ...]
    refused: Mapping[str, UpdaterError]


class _Deltas:
    """The deltas from several releases, side by side over one pool."""

    def __init__(  # noqa: PLR0913, PLR0917 - all of a push
        self,
        workspace: Workspace,
        work: Path,
        root: Path,
        files: tuple[Entry, ...],
        version: str,
        bases: Sequence[Manifest],
        whole: int,
        progress: Progress | None,
        make: Maker,
        others: Mapping[str, OtherMaker],
        prover: proof.Prover,
        pool: Pool,
    ) -> None:
        self._whole = whole
        self._make, self._others = make, others
        self._prover = prover
        self._workspace = workspace
        self._work = work
        self._root = root
        self._files = files
        self._version = version
        self._bases = bases
        self._progress = progress
        self._pool = pool
        self._lock = threading.Lock()
        self._shares = [_missing(files, old) for old in bases]
        self._done = [0] * len(bases)

    def folder(self, number: int) -> Path:
        """Return where one is made."""
        return self._work / f"delta{number}"

    def make(self) -> list[_Made | UpdaterError]:
        """Return the deltas, or why there is none, in the order of the releases.

        Two at a time fill two cores, although parts of each run on one alone; each
        takes the room of an old tree in `work/`.
        """
        if not self._bases:
            return []
        self._tell(0, 0, 1)  # the old trees are unpacked first
        threads = ThreadPoolExecutor(min(len(self._bases), self._pool.cores))
        try:
            return list(threads.map(self._delta_or_error, range(len(self._bases))))
        finally:
            threads.shutdown(cancel_futures=True)

    def _delta_or_error(self, number: int) -> _Made | UpdaterError:
        before = self.folder(number) / "before"
        try:
            return self._delta(number, before)
        except TransientError:
            # Nobody would make this release's deltas later, on a disk with room.
            raise
        except UpdaterError as error:
            self._tell(number, 1, 1)
            return error
        finally:
            deletion.delete_tree(before)

    def _delta(self, number: int, before: Path) -> _Made:
        """Return the deltas from one release, which machines can apply.

        Raises:
            UpdaterError: why there is none.
        """
        old, path = self._bases[number], self.folder(number) / "delta"
        before.mkdir(parents=True)
        blob = self._workspace.blob(old.full.sha256)
        full_bundle.unpack(blob, old.full, old.files, before)
        delta = self._make(
            before,
            old.files,
            self._root,
            self._files,
            path,
            from_version=old.version,
            to_version=self._version,
            progress=lambda _, done, total: self._tell(number, done, total),
            budget=self._pool.budget,
            pool=self._pool,
        )
        # Not smaller than the whole, it is not signed, and need not be proven.
        if delta.length < self._whole:
            self._prover.delta(path, delta, before, old.files, self._files)
        edges, refused = [(path, delta)], {}
        for name, make in self._others.items():
            least = min(edge.length for _, edge in edges)
            beside = path.with_name(name)
            try:
                other = self._other(make, old, before, beside, least)
            except (RejectedError, BrokenError) as error:
                refused[name] = error
            else:
                edges += [] if other is None else [(beside, other)]
        return _Made(tuple(edges), refused)

    def _other(
        self, make: OtherMaker, old: Manifest, before: Path, path: Path, least: int
    ) -> Delta | None:
        """Return a delta that is offered beside others; None where it is no use.

        Args:
            make: makes it.
            old: the release it starts from.
            before: its tree.
            path: where to write it.
            least: bytes of the smallest of the others.

        Raises:
            UpdaterError: it cannot be made, or does not make the release.
        """
        delta = make(
            before,
            old.files,
            self._root,
            self._files,
            path,
            from_version=old.version,
            to_version=self._version,
            budget=self._pool.budget,
            pool=self._pool,
        )
        if delta is None or delta.length >= min(self._whole, _WORTH * least):
            return None
        if delta.codec.startswith(PRIMED) and delta.length + _ENTRY > least:
            return None
        self._prover.delta(path, delta, before, old.files, self._files, beside=True)
        return delta

    def _tell(self, number: int, done: int, total: int) -> None:
        if self._progress is None:
            return
        is_single = len(self._bases) == 1
        title = f"delta{'' if is_single else 's'} from " + (
            self._bases[0].version if is_single else f"{len(self._bases)} releases"
        )
        with self._lock:
            self._done[number] = self._shares[number] * done // total
            self._progress(title, sum(self._done), sum(self._shares))


def _missing(files: Sequence[Entry], old: Manifest) -> int:
    """Return the bytes of files that an old release has no file for; at least one."""
    had = {entry.sha256 for entry in old.files if isinstance(entry, File)}
    new = (
        entry for entry in files if isinstance(entry, File) and entry.sha256 not in had
    )
    return max(1, sum(entry.length for entry in new))


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
    carried: list[Delta] = []
    room = len(previous) // CARRIED
    for manifest in reversed(previous):
        if manifest.tree not in direct:
            continue
        for edge in manifest.deltas:
            if len(carried) >= room:
                return tuple(carried)
            if edge.codec == BSDIFF:
                continue  # it cannot be followed by another one
            if edge.to_tree == manifest.tree and edge.from_tree not in reached:
                reached.add(edge.from_tree)
                carried.append(edge)
    return tuple(carried)


def settle(workspace: Workspace, path: Path, digest: str) -> None:
    """Put a blob into its place; what is there already is left as it is.

    Raises:
        OSError: the disk refused.

    Power cut: it is whole or absent.
    """
    final = workspace.blob(digest)
    if final.exists():
        os.utime(final)  # young again: garbage collection leaves it alone
    else:
        durable.settle(path, final)


def _leave(path: Path, digest: str) -> None:
    """Leave a blob in scratch, which is deleted."""
