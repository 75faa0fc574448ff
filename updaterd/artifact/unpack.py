# SPDX-License-Identifier: Apache-2.0
"""A full bundle unpacked: the whole tree, or chosen files of it.

The bundle holds the distinct contents of the listing's files, in the order in which
they first appear, cut into frames of 16 MiB that decode by themselves. Names, modes
and hashes are the signed listing's. Chosen files need only the frames they lie in:
`ranges` says which bytes of the bundle those are.
"""

from __future__ import annotations

from updaterd.artifact import container
from updaterd.artifact.apply.output import Outputs
from updaterd.artifact.codecs import Stream
from updaterd.artifact.job import Made
from updaterd.core.tree import File
from updaterd.errors import MalformedError, RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from updaterd.artifact.apply.sink import Progress
    from updaterd.artifact.codecs import Packed
    from updaterd.artifact.job import Job
    from updaterd.core.tree import Entry

BATCH = 1 << 18
"""Most bytes decoded at a time."""


def contents(files: Sequence[Entry]) -> list[tuple[File, int]]:
    """Return the first file of each distinct content, and where it starts."""
    hashes: set[str] = set()
    out, at = [], 0
    for entry in files:
        if isinstance(entry, File) and entry.length and entry.sha256 not in hashes:
            hashes.add(entry.sha256)
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
            piece = stream.read(min(count, BATCH, stream.remaining))
            at += len(piece)
            count -= len(piece)
            yield piece

    def _seek(self, at: int) -> Stream:
        while at >= self._end or self._stream is None:
            if self._stream is not None and not self._stream.remaining:
                self._stream.finish()
            self._index += 1
            if self._index >= len(self._table):
                raise MalformedError("the bundle is too short", code="bad_bundle")
            packed = self._table[self._index]
            self._start, self._end = self._end, self._end + packed.raw
            self._stream = None
            if at < self._end:
                self._stream = Stream(self._fd, packed, f"frame {self._index}")
        skip = at - (self._end - self._stream.remaining)
        while skip > 0:
            skip -= len(self._stream.read(min(skip, BATCH)))
        return self._stream

    def finish(self) -> None:
        """Check the end of the frame that was read last."""
        if self._stream is not None and not self._stream.remaining:
            self._stream.finish()


def apply(job: Job, fd: int, progress: Progress | None = None) -> Made:
    """Unpack the full bundle open at `fd`, whose hash was already checked.

    Raises:
        MalformedError: the bundle is not what its format says.
        RejectedError: it came without a listing.
        OSError: the disk refused.
    """
    if job.files is None:
        raise RejectedError("a full bundle needs its listing", code="wrong_tree")
    table = container.read(fd, container.FULL, length=job.bundle_length)
    firsts = contents(job.files)
    if sum(p.raw for p in table) != sum(file.length for file, _ in firsts):
        raise MalformedError("the bundle holds another tree", code="bad_bundle")
    outputs = Outputs(job.destination)
    try:
        return _unpack(_distinct(job), firsts, _Frames(fd, table), outputs, progress)
    finally:
        outputs.close()


def _distinct(job: Job) -> list[File]:
    """Return the first file of each content that is wanted."""
    hashes: set[str] = set()
    out = []
    for entry in job.files or ():
        if not isinstance(entry, File) or entry.sha256 in hashes:
            continue
        if entry.path in job.done or (
            job.only is not None and entry.path not in job.only
        ):
            continue
        hashes.add(entry.sha256)
        out.append(entry)
    return out


def _unpack(
    files: Sequence[File],
    firsts: Sequence[tuple[File, int]],
    frames: _Frames,
    outputs: Outputs,
    progress: Progress | None,
) -> Made:
    """Make the files; others of the same content are copied afterwards, hashed."""
    starts = {file.sha256: at for file, at in firsts}
    done, total = 0, sum(file.length for file in files)
    for file in sorted(files, key=lambda f: starts.get(f.sha256, -1)):
        output = outputs.create(file.path, file.mode)
        for piece in frames.read(starts.get(file.sha256, 0), file.length):
            output.write(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)
        output.finish()
    frames.finish()
    return Made(bytes_written=done, files_changed=len(files))


def ranges(
    head: bytes, length: int, files: Sequence[Entry], paths: frozenset[str]
) -> tuple[tuple[int, int], ...]:
    """Return which bytes [start, end) of a full bundle hold the wanted paths.

    Args:
        head: the bundle's first bytes; 64 KiB are enough for any header.
        length: bytes of the bundle.
        files: the signed listing.
        paths: of the listing, those that are to be made.

    Raises:
        MalformedError: not a full bundle.
    """
    table = container.parse(head, container.FULL, length=length)
    hashes = {e.sha256 for e in files if isinstance(e, File) and e.path in paths}
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
