# SPDX-License-Identifier: Apache-2.0
"""What a worker is asked for, what it answers, and how both travel."""

from __future__ import annotations

from updaterd.core.frozen import record
from updaterd.core.tree import File, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from updaterd.core.tree import Entry


@record
class Job:
    """One bundle to turn into a tree.

    Attributes:
        kind: "full" or "delta".
        codec: as the manifest names it.
        bundle: the file, already fetched; a path, or an open descriptor.
        bundle_sha256: what it must be; checked before anything is parsed.
        bundle_length: bytes.
        destination: an existing private directory; empty, but for `done`. A path,
            or a descriptor, like `old`.
        files: signed listing of the tree to make. None for a step in the middle
            of a path: then `tree` alone is compared and the report has the listing.
        tree: tree id of the tree to make.
        old: root of the release the delta starts from.
        old_files: its listing.
        unchanged: "reflink", "hardlink" or "copy"; what cannot be done is copied.
        only: for "full": make these paths only, into a tree that lacks them.
        done: paths that are in the destination already, verified by the caller;
            they are not made again.
        partial: for "full" with `only`: the bundle file has holes where frames
            are that nobody needs, so it cannot be hashed as a whole.
        memory: bytes of private memory the worker may take; 0: as `core/budget` says.
    """

    kind: str
    codec: str
    bundle: Path | str | int
    bundle_sha256: str
    bundle_length: int
    destination: Path | str | int
    files: tuple[Entry, ...] | None
    tree: str
    old: Path | str | int | None = None
    old_files: tuple[Entry, ...] = ()
    unchanged: str = "reflink"
    only: frozenset[str] | None = None
    done: frozenset[str] = frozenset()
    partial: bool = False
    memory: int = 0


@record
class Made:
    """What the bundle opener says of what it made: numbers, no words.

    None of it is believed: `completion` hashes the tree after that process ended.

    Attributes:
        bytes_written: bytes made by operations or unpacked.
        files_changed: files made that way.
        short: places in `Job.old_files` of files that had fewer bytes than they should.
        script: the tree script, when `Job.files` is None.
    """

    bytes_written: int
    files_changed: int
    short: tuple[int, ...] = ()
    script: bytes = b""


@record
class Used:
    """What the bundle opener took: CPU seconds, peak memory in bytes."""

    cpu_s: float = 0.0
    peak_rss: int = 0


@record
class Report:
    """What became of a job.

    Attributes:
        bytes_written: bytes made by operations or unpacked.
        files_changed: files made that way.
        files_shared: files taken over from the old tree.
        files_done: entries that were in place before (`Job.done`).
        bad_old_files: old paths that are not what their listing says.
        missing: new paths that could not be made because of them; everything
            else is in place. Fetch them from the full bundle (`only`).
        files: listing of the tree that was made, when `Job.files` was None.
        cpu_s: of the worker, user and system.
        peak_rss: of the worker, bytes.
    """

    bytes_written: int
    files_changed: int
    files_shared: int
    files_done: int = 0
    bad_old_files: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    files: tuple[Entry, ...] | None = None
    cpu_s: float = 0.0
    peak_rss: int = 0


def rows(files: Sequence[Entry] | None) -> list[tuple[object, ...]] | None:
    """Return a listing as plain tuples."""
    if files is None:
        return None
    return [
        (entry.path, entry.target)
        if isinstance(entry, Link)
        else (entry.path, entry.sha256, entry.length, entry.mode)
        for entry in files
    ]


def entries(plain: Sequence[Sequence[object]] | None) -> tuple[Entry, ...] | None:
    """Return the listing that `rows` made plain."""
    if plain is None:
        return None
    return tuple(
        Link(*row) if len(row) == 2 else File(*row)  # type: ignore[arg-type]
        for row in plain
    )
