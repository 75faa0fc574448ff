# SPDX-License-Identifier: Apache-2.0
"""A delta bundle applied to an old tree.

Everything is checked against the signed listing before a byte is written. Made here
are the files that the operations make, and nothing else: what stays, moved or is a
link needs no bundle. `completion` does that, hashes all of it, and finds what came out
wrong because an old file was not what its listing says.
"""

from __future__ import annotations

from updaterd.artifact import codecs, container, script
from updaterd.artifact.apply import loops
from updaterd.artifact.apply.blocks import MAX_BLOCK
from updaterd.artifact.apply.engine import Engine
from updaterd.artifact.apply.output import Outputs
from updaterd.artifact.apply.sink import Sink
from updaterd.artifact.codecs import Stream
from updaterd.artifact.job import Made
from updaterd.artifact.script import COPY, LINK, MADE
from updaterd.core.bundle_kinds import ARCHIVES, ARM, BSDIFF, PRIMED, PROJECTED
from updaterd.core.frozen import record
from updaterd.core.tree import File, Link
from updaterd.errors import MalformedError, RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    from updaterd.artifact.apply.blocks import Block
    from updaterd.artifact.apply.sink import Progress
    from updaterd.artifact.apply.sources import Concatenation
    from updaterd.artifact.archives.scratch import Scratch
    from updaterd.artifact.codecs import Packed
    from updaterd.artifact.job import Job
    from updaterd.artifact.script import Item, Script
    from updaterd.core.tree import Entry

_GROWTH, _GROUND = 16, 1 << 28
_SCRIPT, _CONTROL, _RUNS, _CHANGES, _EXTRA = range(5)
_LEAST = 5
_STREAMS = {PROJECTED: 6, ARM: 6, ARCHIVES: 7}


def prepare(codec: str, destination: Path | str | int) -> None:
    """Import and open what the deltas of a codec need: in the cage nothing can be.

    Raises:
        OSError: the disk refused.
    """
    if codec == BSDIFF:
        from updaterd.artifact import bsdiff  # noqa: F401, PLC0415 - few need it
    if codec.startswith((PROJECTED, ARM, ARCHIVES)):
        from updaterd.artifact.programs import projection  # noqa: PLC0415 - few need it

        projection.load()
    if codec.startswith(ARCHIVES):
        from updaterd.artifact.archives import scratch, virtual  # noqa: F401, PLC0415 - few need it

        scratch.prepare(destination)


def apply(
    job: Job,
    fd: int,
    progress: Progress | None = None,
    using: ModuleType | None = None,
) -> Made:
    """Apply the delta bundle open at `fd`, whose hash was already checked.

    Args:
        job: what is to be made.
        fd: of the bundle.
        progress: told how far it is.
        using: whose loops; see `loops`.

    Raises:
        MalformedError: the bundle is not what its format says.
        RejectedError: it makes something else than what is signed.
        OSError: the disk refused.
    """
    if job.old is None:
        raise RejectedError("a delta needs the tree it starts from", code="wrong_tree")
    read = _read(job, fd)
    if job.files is not None:
        _check_plan(read.plan, job.old_files, job.files)
    else:
        _check_size(read.plan, job.old_files)
    using = using or loops.best()
    *diff, extra = read.diff
    streams = [Stream(fd, piece, "diff stream") for piece in diff]
    ends = _Ends(job, job.old, fd, read, using)
    try:
        old, plan = ends.old, ends.plan
        blocks: Iterable[Block] = _blocks(
            fd, read.control, old.size, using, triples=job.codec == BSDIFF
        )
        project = None
        if read.images and read.images[0].raw:
            from updaterd.artifact.programs import projection  # noqa: PLC0415 - few need it

            projected = projection.prepare(
                fd,
                read.images[0],
                plan,
                blocks,
                old.read,
                arm=job.codec.startswith((ARM, ARCHIVES)),
            )
            blocks, project = projected.blocks(), projected.project
        sink = Sink(ends.outputs, ends.rows, progress, ends.done)
        engine = Engine(
            old,
            using.Sparse(*streams) if len(streams) == 2 else using.Dense(*streams),
            Stream(fd, extra, "extra stream", _prefix(job, old, plan)),
            sink,
            plan.barriers(),
            project,
        )
        engine.run(blocks)
        sink.finish()
        return Made(
            bytes_written=sink.written,
            files_changed=sink.count,
            short=_places(job.old_files, old.short()),
            script=read.script if job.files is None else b"",
        )
    finally:
        ends.close()


@record
class _Read:
    """What a bundle says before its operations: script, and where its streams lie."""

    plan: Script
    script: bytes
    control: Packed
    diff: Sequence[Packed]
    images: Sequence[Packed] = ()
    archives: Sequence[Packed] = ()


def _read(job: Job, fd: int) -> _Read:
    """Return what a bundle says before its operations.

    Raises:
        MalformedError: it is not what its format says.
    """
    if job.codec == BSDIFF:
        from updaterd.artifact import bsdiff  # noqa: PLC0415 - few bundles need it

        plan = bsdiff.plan(fd, job)
        control, *diff = bsdiff.streams(fd, job.bundle_length, plan)
        return _Read(plan, b"", control, diff)
    table = container.read(fd, container.DELTA, length=job.bundle_length)
    if len(table) != _STREAMS.get(job.codec.partition("+")[0], _LEAST):
        raise MalformedError(
            f"{job.codec} with {len(table)} streams", code="bad_bundle"
        )
    data = codecs.read_whole(fd, table[_SCRIPT], "tree script", limit=script.MAX_BYTES)
    plan = script.decode(data, job.old_files)
    _, control, *diff = table[:_LEAST]
    return _Read(plan, data, control, diff, table[_LEAST:6], table[6:])


class _Ends:
    """What operations read and write: files, or what is in them, inflated."""

    def __init__(
        self,
        job: Job,
        root: Path | str | int,
        fd: int,
        read: _Read,
        using: ModuleType,
    ) -> None:
        """Open both trees.

        Args:
            job: what is to be made.
            root: the old tree.
            fd: of the bundle.
            read: what it says.
            using: whose loops.

        Raises:
            MalformedError: what it says of archives is impossible.
            OSError: the disk refused.
        """
        self.plan, self.done, self.rows = read.plan, job.done, plan_rows(read.plan)
        self.outputs = Outputs(job.destination)
        self._scratch: Scratch | None = None
        try:
            if read.archives:
                self._inflate(job, root, fd, read)
            self.old: Concatenation = using.Concatenation(
                root, self.plan.sources, job.destination, self.plan.again, self._scratch
            )
        except BaseException:
            self._close()
            raise

    def _inflate(self, job: Job, root: Path | str | int, fd: int, read: _Read) -> None:
        from updaterd.artifact.archives import scratch, virtual  # noqa: PLC0415 - few need it

        inflated = virtual.prepare(fd, read.archives[0], read.plan)
        self._scratch = scratch.Scratch(job.destination)
        inflated.inflate(root, self._scratch)
        self.outputs = inflated.outputs(self.outputs, self._scratch, self.done)
        self.plan, self.rows = inflated.script, inflated.rows
        self.done = inflated.present(self.done)

    def close(self) -> None:
        """Close everything."""
        self.old.close()
        self._close()

    def _close(self) -> None:
        self.outputs.close()
        if self._scratch is not None:
            self._scratch.close()


def _prefix(job: Job, old: Concatenation, plan: Script) -> bytes:
    """Return what comes before the extra bytes where these are unpacked.

    Raises:
        MalformedError: it is shorter or longer than it may be.
    """
    if not job.codec.startswith(PRIMED):
        return b""
    size = sum(file.length for file in plan.sources)
    if size and not codecs.MIN_PREFIX <= size <= codecs.MAX_PREFIX:
        raise MalformedError(f"a prefix of {size} bytes", code="bad_bundle")
    return old.read(0, size)


def _places(files: Sequence[Entry], paths: Sequence[str]) -> tuple[int, ...]:
    """Return where in a listing some paths stand."""
    if not paths:
        return ()
    return tuple(place for place, file in enumerate(files) if file.path in paths)


def plan_rows(plan: Script) -> list[tuple[str, int, int]]:
    """Return path, length and mode of what the operations make, in stream order."""
    return [(i.path, i.number, i.mode) for i in plan.items if i.kind == MADE]


def _blocks(
    fd: int, packed: Packed, size: int, using: ModuleType, *, triples: bool
) -> Iterator[Block]:
    control = Stream(fd, packed, "operations")
    position = 0
    while control.remaining:
        if triples:
            most = 24 * MAX_BLOCK
            data = control.read(min(control.remaining, most))
            block = using.check(data, position, size)
        else:
            block = using.decode(control, position, size)
        position = block.end
        yield block
    control.finish()


def _check_size(plan: Script, old: Sequence[Entry]) -> None:
    """Check that a tree in the middle of a path has a sane size; none is signed.

    Raises:
        RejectedError: it is many times larger than the one before it.
    """
    before = sum(entry.length for entry in old if isinstance(entry, File))
    total = sum(item.number for item in plan.items if item.kind == MADE)
    if total > _GROWTH * before + _GROUND:
        raise RejectedError(
            f"a step of the path makes {total} bytes from {before}",
            do="publish the delta again",
            code="too_large",
        )


def _check_plan(plan: Script, old: Sequence[Entry], files: tuple[Entry, ...]) -> None:
    """Check that the script makes the signed listing, as far as it can tell.

    Raises:
        RejectedError: it makes something else.
    """  # noqa: DOC501  as OtherTreeError
    target = {entry.path: entry for entry in files}
    if len(plan.unchanged) + len(plan.items) != len(target):
        raise OtherTreeError("the number of files")
    for entry in plan.unchanged:
        if target.get(entry.path) != entry:
            raise OtherTreeError(entry.path, files)
    for item in plan.items:
        if not _agrees(item, target.get(item.path), old):
            raise OtherTreeError(item.path, files)


def _agrees(item: Item, entry: Entry | None, old: Sequence[Entry]) -> bool:
    if isinstance(entry, Link):
        return item.kind == LINK and item.target == entry.target
    if entry is None or item.kind == LINK or item.mode != entry.mode:
        return False
    if item.kind == MADE:
        return item.number == entry.length
    source = old[item.number] if item.kind == COPY else entry
    return isinstance(source, File) and source.sha256 == entry.sha256


class OtherTreeError(RejectedError):
    """A delta makes another tree than the manifest lists.

    Attributes:
        entry: place in the listing of what is other; less than 0 for what is not in it.
    """

    code = "wrong_tree"

    def __init__(self, difference: str, files: Sequence[Entry] = ()) -> None:
        super().__init__(
            f"the delta makes another tree than the manifest lists: {difference:.80}",
            do="publish the delta again",
        )
        paths = [entry.path for entry in files]
        self.entry = paths.index(difference) if difference in paths else -1
