"""A full bundle unpacked: the whole tree, or chosen files of it.

The bundle holds the distinct contents of the listing's files, in the order in which
they first appear, cut into frames of 16 MiB that decode by themselves. Names, modes
and hashes are the signed listing's. Chosen files need only the frames they lie in:
`ranges` says which bytes of the bundle those are.
"""

from __future__ import annotations

from updaterd.artifact import container
from updaterd.artifact.codecs import Stream
from updaterd.artifact.folders import Folders
from updaterd.artifact.job import Report
from updaterd.artifact.output import Destination
from updaterd.core.tree import File, Link
from updaterd.errors import MalformedError, RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from updaterd.artifact.codecs import Packed
    from updaterd.artifact.job import Job
    from updaterd.artifact.sink import Progress
    from updaterd.core.tree import Entry

BATCH = 1 << 18
"""Most bytes decoded at a time."""


def contents(files: Sequence[Entry]) -> list[tuple[File, int]]:
    """Return the first file of each distinct content, and where it starts."""
    seen: set[str] = set()
    out, at = [], 0
    for entry in files:
        if isinstance(entry, File) and entry.length and entry.sha256 not in seen:
            seen.add(entry.sha256)
            out.append((entry, at))
            at += entry.length
    return out


class _Frames:
    """The frames read as one stream; those that are skipped are never decoded."""

    def __init__(self, fd: int, table: Sequence[Packed]) -> None:
        self._fd = fd
        self._table = table
        self._index = -1
        self._start = self._end = 0
        self._stream: Stream | None = None

    def read(self, at: int, count: int) -> Iterator[bytes]:
        """Yield the raw bytes [at, at + count), in pieces."""
        while count:
            stream = self._seek(at)
            piece = stream.read(min(count, BATCH, stream.left))
            at += len(piece)
            count -= len(piece)
            yield piece

    def _seek(self, at: int) -> Stream:
        while at >= self._end or self._stream is None:
            if self._stream is not None and not self._stream.left:
                self._stream.finish()
            self._index += 1
            if self._index >= len(self._table):
                raise MalformedError("the bundle is too short", code="bad_bundle")
            packed = self._table[self._index]
            self._start, self._end = self._end, self._end + packed.raw
            self._stream = None
            if at < self._end:
                self._stream = Stream(self._fd, packed, f"frame {self._index}")
        skip = at - (self._end - self._stream.left)
        while skip > 0:
            skip -= len(self._stream.read(min(skip, BATCH)))
        return self._stream

    def finish(self) -> None:
        """Check the end of the frame that was read last."""
        if self._stream is not None and not self._stream.left:
            self._stream.finish()


def apply(job: Job, fd: int, progress: Progress | None = None) -> Report:
    """Unpack the full bundle open at `fd`, whose hash was already checked.

    Raises:
        MalformedError: the bundle is not what its format says.
        RejectedError: it holds other bytes than the signed ones.
        OSError: the disk refused.
    """
    if job.files is None:
        raise RejectedError("a full bundle needs its listing", code="wrong_tree")
    table = container.read(fd, container.FULL, length=job.bundle_length)
    firsts = contents(job.files)
    if sum(p.raw for p in table) != sum(file.length for file, _ in firsts):
        raise MalformedError("the bundle holds another tree", code="bad_bundle")
    wanted = [
        entry
        for entry in job.files
        if entry.path not in job.done and (job.only is None or entry.path in job.only)
    ]
    destination = Destination(job.destination)
    try:
        return _unpack(job, wanted, firsts, _Frames(fd, table), destination, progress)
    finally:
        destination.close()


def _unpack(  # noqa: PLR0913, PLR0917
    job: Job,
    wanted: list[Entry],
    firsts: list[tuple[File, int]],
    frames: _Frames,
    destination: Destination,
    progress: Progress | None,
) -> Report:
    starts = {file.sha256: at for file, at in firsts}
    groups: dict[str, list[File]] = {}
    for entry in wanted:
        if isinstance(entry, Link):
            destination.symlink(entry.path, entry.target)
        else:
            groups.setdefault(entry.sha256, []).append(entry)
    done, total = 0, sum(group[0].length for group in groups.values())
    for digest, group in sorted(groups.items(), key=lambda g: starts.get(g[0], -1)):
        first = group[0]
        output = destination.create(first.path, first.mode)
        for piece in frames.read(starts.get(digest, 0), first.length):
            output.write(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)
        if output.close() != digest:
            raise RejectedError(
                f"the bundle makes other bytes than the signed ones: {first.path:.80}",
                do="publish the release again",
                code="bad_output",
            )
        with Folders(job.destination) as folders:
            for other in group[1:]:
                if not destination.share(
                    folders, first, other.path, other.mode, "copy"
                ):
                    raise RejectedError(
                        f"{first.path:.80} changed while it was copied",
                        code="bad_output",
                    )
    frames.finish()
    files = sum(len(group) for group in groups.values())
    return Report(
        bytes_written=done,
        files_changed=files,
        files_shared=0,
        files_done=len(job.done),
    )


def ranges(
    head: bytes, length: int, files: Sequence[Entry], wanted: frozenset[str]
) -> tuple[tuple[int, int], ...]:
    """Return which bytes [start, end) of a full bundle hold the wanted paths.

    Args:
        head: the bundle's first bytes; 64 KiB are enough for any header.
        length: bytes of the bundle.
        files: the signed listing.
        wanted: paths.

    Raises:
        MalformedError: not a full bundle.
    """
    table = container.parse(head, container.FULL, length=length)
    hashes = {e.sha256 for e in files if isinstance(e, File) and e.path in wanted}
    spans = [
        (at, at + file.length) for file, at in contents(files) if file.sha256 in hashes
    ]
    out = [(0, table[0].offset)] if table else []
    raw = 0
    for packed in table:
        low, high = raw, raw + packed.raw
        raw = high
        if any(start < high and low < end for start, end in spans):
            out.append((packed.offset, packed.offset + packed.length))
    return tuple(out)
