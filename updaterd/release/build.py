# SPDX-License-Identifier: Apache-2.0
"""One release, made from a directory: listing, full bundle, deltas, manifest.

Blobs are named by their content, so making them again after an interruption writes
the same files again and nothing else.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from updaterd import durable
from updaterd.core.attestation import Attestation
from updaterd.core.attributes import NONE, Attributes
from updaterd.core.bundle_kinds import FIRST
from updaterd.core.manifest import Delta, Entry, File, Full, Manifest, tree_id
from updaterd.errors import UpdaterError
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles import full as full_bundle
from updaterd.release.bundles import proof, supplied
from updaterd.release.bundles.packing import exchange
from updaterd.release.bundles.pool import BUDGET, Pool
from updaterd.release.bundles.programs import elf
from updaterd.release.bundles.programs import matching as program_matching
from updaterd.release.deltas import Deltas, Maker, OtherMaker, Progress, carried_over
from updaterd.release.workspace import Workspace

_ARM, _INFLATED, _PRIMED = "AArch64", "inflated", "primed"

_LARGER = (
    "deltas of programs are larger than they could be, often by several times: "
    "updaterd was installed here without its compiled module (use a wheel, or have "
    "gcc and Python's headers when pip installs it)"
)


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
            root,
            files,
            work / "full",
            progress=progress,
            rate=pool.rate,
            budget=pool.budget,
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
        deltas = Deltas(
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
