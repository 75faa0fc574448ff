"""A delta bundle applied to an old tree.

Everything is checked against the signed listing before a byte is written; what is
made is hashed while it is written. An old file that turns out not to be what its
listing says costs only the new files that depend on it: they are reported as
missing, the rest is in place.
"""

from __future__ import annotations

from updaterd.artifact import codecs, container, loops, script
from updaterd.artifact.blocks import MAX_BLOCK
from updaterd.artifact.codecs import Stream
from updaterd.artifact.engine import Engine
from updaterd.artifact.folders import Folders
from updaterd.artifact.job import Report
from updaterd.artifact.output import Destination
from updaterd.artifact.script import COPY, LINK, MADE
from updaterd.artifact.sink import Sink
from updaterd.core.tree import File, Link
from updaterd.errors import MalformedError, RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType

    from updaterd.artifact.blocks import Block
    from updaterd.artifact.codecs import Packed
    from updaterd.artifact.job import Job
    from updaterd.artifact.script import Item, Script
    from updaterd.artifact.sink import Progress
    from updaterd.artifact.sources import Concatenation
    from updaterd.core.tree import Entry

BSDIFF = "bsdiff40"
"""As in `core.deltas`, which costs the worker more than all of this to import."""
PROJECTED = "delta2"
"""What the codec of a delta with images begins with."""

_GROWTH, _GROUND = 16, 1 << 28
_SCRIPT, _CONTROL, _RUNS, _CHANGES, _EXTRA = range(5)


def apply(
    job: Job,
    fd: int,
    progress: Progress | None = None,
    using: ModuleType | None = None,
) -> Report:
    """Apply the delta bundle open at `fd`, whose hash was already checked.

    Args:
        job: what is to be made.
        fd: of the bundle.
        progress: told how far it is.
        using: whose loops; see `loops`.

    Raises:
        MalformedError: the bundle is not what its format says.
        RejectedError: it makes something else than what is signed; or, in the
            middle of a path, an old file is not (`bad_old_files`).
        OSError: the disk refused.
    """
    if job.old is None:
        raise RejectedError("a delta needs the tree it starts from", code="wrong_tree")
    if job.codec == BSDIFF:
        from updaterd.artifact import bsdiff  # noqa: PLC0415 - few bundles need it

        plan = bsdiff.plan(fd, job)
        control, *packed = bsdiff.streams(fd, job.bundle_length, plan)
        images: tuple[Packed, ...] = ()
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
    destination = Destination(job.destination)
    old = using.Concatenation(job.old, plan.sources, job.destination, plan.again)
    try:
        blocks: Iterable[Block] = _blocks(
            fd, control, old.size, using, triples=job.codec == BSDIFF
        )
        project = None
        if images:
            from updaterd.artifact import projection  # noqa: PLC0415 - few need it

            projected = projection.prepare(fd, images[0], plan, blocks, old.read)
            blocks, project = projected.blocks(), projected.project
        making = _Making(job, plan, destination)
        sink = Sink(destination, plan_rows(plan), progress, making.done())
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
        making.share()
        making.judge(sink.digests, old)
        return making.report(sink)
    finally:
        old.close()
        destination.close()


def plan_rows(plan: Script) -> list[tuple[str, int, int]]:
    """Return path, length and mode of what the operations make, in stream order."""
    return [(i.path, i.number, i.mode) for i in plan.items if i.kind == MADE]


def _blocks(
    fd: int, packed: Packed, size: int, using: ModuleType, *, triples: bool
) -> Iterator[Block]:
    control = Stream(fd, packed, "operations")
    position = 0
    while control.left:
        if triples:
            most = 24 * MAX_BLOCK
            data = control.read(min(control.left, most))
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
    made = sum(item.number for item in plan.items if item.kind == MADE)
    if made > _GROWTH * before + _GROUND:
        raise RejectedError(
            f"a step of the path makes {made} bytes from {before}",
            do="publish the delta again",
            code="too_large",
        )


def _check_plan(plan: Script, old: Sequence[Entry], files: tuple[Entry, ...]) -> None:
    """Check that the script makes the signed listing, as far as it can tell.

    Raises:
        RejectedError: it makes something else.
    """  # noqa: DOC501  raised through _other
    target = {entry.path: entry for entry in files}
    if len(plan.kept) + len(plan.items) != len(target):
        raise _other("the number of files")
    for entry in plan.kept:
        if target.get(entry.path) != entry:
            raise _other(entry.path)
    for item in plan.items:
        if not _agrees(item, target.get(item.path), old):
            raise _other(item.path)


def _agrees(item: Item, entry: Entry | None, old: Sequence[Entry]) -> bool:
    if isinstance(entry, Link):
        return item.kind == LINK and item.target == entry.target
    if entry is None or item.kind == LINK or item.mode != entry.mode:
        return False
    if item.kind == MADE:
        return item.number == entry.length
    source = old[item.number] if item.kind == COPY else entry
    return isinstance(source, File) and source.sha256 == entry.sha256


def _other(what: str) -> RejectedError:
    return RejectedError(
        f"the delta makes another tree than the manifest lists: {what:.80}",
        do="publish the delta again",
        code="wrong_tree",
    )


class _Making:
    """One tree in the making: what was shared, what came out, what is missing."""

    def __init__(self, job: Job, plan: Script, destination: Destination) -> None:
        self.job = job
        self.plan = plan
        self.destination = destination
        self.target = {entry.path: entry for entry in job.files or ()}
        self.shared = 0
        self.bad: set[str] = set()
        self.missing: set[str] = set()
        self.made: list[Entry] = []

    def done(self) -> dict[str, str]:
        """Return the sha256 of what is in place already, by path."""
        entries = (self.target.get(path) for path in self.job.done)
        return {e.path: e.sha256 for e in entries if isinstance(e, File)}

    def share(self) -> None:
        """Take over what did not change, and what only moved."""
        assert self.job.old is not None
        with Folders(self.job.old) as folders:
            for entry in self.plan.kept:
                if isinstance(entry, Link):
                    self._link(entry.path, entry.target)
                else:
                    self._take(folders, entry, entry.path, entry.mode)
            for item in self.plan.items:
                if item.kind == LINK:
                    self._link(item.path, item.target)
                elif item.kind == COPY:
                    source = self.job.old_files[item.number]
                    assert isinstance(source, File)
                    self._take(folders, source, item.path, item.mode)

    def _link(self, path: str, target: str) -> None:
        if path not in self.job.done:
            self.destination.symlink(path, target)
        self.made.append(Link(path, target))

    def _take(self, folders: Folders, old: File, path: str, mode: int) -> None:
        how = self.job.unchanged
        made = old
        if path != old.path or mode != old.mode:
            made = File(path, old.sha256, old.length, mode)
        if path in self.job.done:
            self.made.append(made)
        elif self.destination.share(folders, old, path, mode, how):
            self.shared += 1
            self.made.append(made)
        else:
            self.bad.add(old.path)
            self.missing.add(path)

    def judge(self, digests: list[str], old: Concatenation) -> None:
        """Compare what came out with what is signed.

        Raises:
            RejectedError: it is something else, and the delta is to blame; or no
                single file can be named, because the listing is not known.
        """
        rows = plan_rows(self.plan)
        files = [
            File(path, digest, length, mode)
            for (path, length, mode), digest in zip(rows, digests, strict=True)
        ]
        target = self.target
        wrong = {f.path for f in files if target and target[f.path] != f}
        self._copy_same(files, wrong)
        self.made += [file for file in files if file.path not in wrong]
        self.missing |= wrong
        if not self.missing and self._is_signed():
            return
        if wrong or not self.missing:
            self.bad.update(old.bad())
        for path in wrong:
            self.destination.remove(path)
        if not self.bad:
            raise RejectedError(
                "the delta makes other bytes than the signed ones",
                do="publish the delta again",
                code="bad_output",
            )
        if self.job.files is None:
            raise RejectedError(
                f"{len(self.bad)} installed files are not what was installed",
                means=f"a delta cannot start from them: {min(self.bad)!r:.80}",
                do="fetch the full bundle",
                code="bad_old_files",
            )

    def _is_signed(self) -> bool:
        """Tell whether the tree that was made is the signed one."""
        if self.job.files is not None:
            return len(self.made) == len(self.target) and all(
                self.target.get(entry.path) == entry for entry in self.made
            )
        from updaterd.core.manifest import tree_id  # noqa: PLC0415 - as above

        return tree_id(tuple(self.made)) == self.job.tree

    def _copy_same(self, files: list[File], wrong: set[str]) -> None:
        with Folders(self.job.destination) as folders:
            for item in self.plan.items:
                if item.kind != script.SAME:
                    continue
                source = files[item.number]
                made = File(item.path, source.sha256, source.length, item.mode)
                if item.path in self.job.done:
                    self.made.append(made)
                    continue
                # Never a hard link: two paths of one tree stay two files.
                if source.path in wrong or not self.destination.share(
                    folders, source, item.path, item.mode, "copy"
                ):
                    self.missing.add(item.path)
                else:
                    self.made.append(made)

    def report(self, sink: Sink) -> Report:
        """Return what became of it."""
        made = tuple(sorted(self.made, key=lambda entry: entry.path.encode()))
        return Report(
            bytes_written=sink.written,
            files_changed=sink.count,
            files_shared=self.shared,
            files_done=len(self.job.done),
            bad_old_files=tuple(sorted(self.bad)),
            missing=tuple(sorted(self.missing)),
            files=made if self.job.files is None else None,
        )
