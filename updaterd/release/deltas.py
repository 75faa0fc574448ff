# SPDX-License-Identifier: Apache-2.0
"""The deltas that lead to a release: made side by side, or carried over.

Each is made, proven, and kept only where machines gain by it.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from updaterd.core.bundle_kinds import BSDIFF, PRIMED
from updaterd.core.manifest import Delta, Entry, File, Manifest
from updaterd.errors import BrokenError, RejectedError, TransientError, UpdaterError
from updaterd.files import deletion
from updaterd.release.bundles import full as full_bundle
from updaterd.release.bundles import proof
from updaterd.release.bundles.pool import Pool
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

CARRIED = 2
"""Of the edges made, one in this many is carried over from an earlier manifest."""


@dataclass(frozen=True, slots=True)
class Made:
    """The deltas from one release: where each lies.

    Attributes:
        edges: the plain one, then what is offered beside it.
        refused: by name, why there is no such one, where one was tried.
    """

    edges: tuple[tuple[Path, Delta], ...]
    refused: Mapping[str, UpdaterError]


class Deltas:
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

    def make(self) -> list[Made | UpdaterError]:
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

    def _delta_or_error(self, number: int) -> Made | UpdaterError:
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

    def _delta(self, number: int, before: Path) -> Made:
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
            if least <= _ENTRY:
                break  # nothing that is worth its entry can come of it
            beside = path.with_name(name)
            try:
                other = self._other(make, old, before, beside, least)
            except (RejectedError, BrokenError) as error:
                refused[name] = error
            else:
                edges += [] if other is None else [(beside, other)]
        return Made(tuple(edges), refused)

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
        if (
            delta is None
            or delta.length >= self._whole
            or not is_offered(delta, beside=least)
        ):
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


def is_offered(delta: Delta, *, beside: int) -> bool:
    """Tell whether a delta is small enough to be offered beside the plain one.

    Args:
        delta: it.
        beside: bytes of the smallest that there is.
    """
    entry = _ENTRY if delta.codec.startswith(PRIMED) else 0
    return delta.length < _WORTH * beside and delta.length + entry <= beside


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
