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
from updaterd.core.bundle_kinds import BSDIFF, PROJECTED
from updaterd.core.tree import File, Link
from updaterd.errors import MalformedError, RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType

    from updaterd.artifact.apply.blocks import Block
    from updaterd.artifact.apply.sink import Progress
    from updaterd.artifact.codecs import Packed
    from updaterd.artifact.job import Job
    from updaterd.artifact.script import Item, Script
    from updaterd.core.tree import Entry

_GROWTH, _GROUND = 16, 1 << 28
_SCRIPT, _CONTROL, _RUNS, _CHANGES, _EXTRA = range(5)


def prepare(codec: str) -> None:
    """Import what the deltas of a codec need: in the cage nothing can be."""
    if codec == BSDIFF:
        from updaterd.artifact import bsdiff  # noqa: F401, PLC0415 - few need it
    if codec.startswith(PROJECTED):
        from updaterd.artifact.programs import projection  # noqa: PLC0415 - few need it

        projection.load()


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
    if job.codec == BSDIFF:
        from updaterd.artifact import bsdiff  # noqa: PLC0415 - few bundles need it

        plan = bsdiff.plan(fd, job)
        control, *packed = bsdiff.streams(fd, job.bundle_length, plan)
        images: tuple[Packed, ...] = ()
        data = b""
    else:
        table = container.read(fd, container.DELTA, length=job.bundle_length)
        if len(table) != (6 if job.codec.startswith(PROJECTED) else 5):
            raise MalformedError(
                f"{job.codec} with {len(table)} streams", code="bad_bundle"
            )
        data = codecs.read_whole(
            fd, table[_SCRIPT], "tree script", limit=script.MAX_BYTES
        )
        plan = script.decode(data, job.old_files)
        _, control, *packed = table[:5]
        images = table[5:]
    if job.files is not None:
        _check_plan(plan, job.old_files, job.files)
    else:
        _check_size(plan, job.old_files)
    using = using or loops.best()
    *diff, extra = packed
    streams = [Stream(fd, piece, "diff stream") for piece in diff]
    outputs = Outputs(job.destination)
    old = using.Concatenation(job.old, plan.sources, job.destination, plan.again)
    try:
        blocks: Iterable[Block] = _blocks(
            fd, control, old.size, using, triples=job.codec == BSDIFF
        )
        project = None
        if images:
            from updaterd.artifact.programs import projection  # noqa: PLC0415 - few need it

            projected = projection.prepare(fd, images[0], plan, blocks, old.read)
            blocks, project = projected.blocks(), projected.project
        sink = Sink(outputs, plan_rows(plan), progress, job.done)
        engine = Engine(
            old,
            using.Sparse(*streams) if len(streams) == 2 else using.Dense(*streams),
            Stream(fd, extra, "extra stream"),
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
            script=data if job.files is None else b"",
        )
    finally:
        old.close()
        outputs.close()


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
