# SPDX-License-Identifier: Apache-2.0
"""Both sides of a delta with their archives inflated, in scratch files.

Left packed are streams that both sides have: they are copied as they are, and cost a
machine nothing. Inflated are the others of the old side, and those of the new side that
a known encoder makes anew. A program in an archive becomes a piece of its own.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from updaterd.artifact import classic
from updaterd.artifact.archives import layout
from updaterd.artifact.archives.virtual import order
from updaterd.artifact.classic import Encoder
from updaterd.artifact.script import LONG
from updaterd.core.frozen import replaced
from updaterd.core.manifest import File
from updaterd.release.bundles.archives import finder
from updaterd.release.bundles.archives.encoders import Encoders
from updaterd.release.bundles.archives.finder import Budget, Mark, Program, View

_PIECE = 1 << 20


@dataclass(slots=True)
class Sides:
    """What a delta is made between: files, or pieces of inflated ones.

    Attributes:
        sources: what is copied from, in virtual order.
        old: where each lies.
        targets: what is made, in stream order.
        new: where each lies.
        long: how many of these are of long files.
        archives: rows of both sides, and which old stream each new one is like; None
            where nothing is inflated.
        encoders: the table.
    """

    sources: list[File]
    old: list[Path]
    targets: list[File]
    new: list[Path]
    long: int
    archives: tuple[list[layout.Rows], list[layout.Rows], list[int]] | None = None
    encoders: Sequence[Encoder] = ()

    def stream(self, places: Sequence[int]) -> bytes:
        """Return the archives stream; empty where nothing is inflated.

        Args:
            places: of the targets that are read again.
        """
        if self.archives is None:
            return b""
        return layout.encode(self.encoders, *self.archives, places)


def plain(
    old_root: Path, sources: Sequence[File], new_root: Path, targets: Sequence[File]
) -> Sides:
    """Return files as they are."""
    return Sides(
        list(sources),
        [old_root / file.path for file in sources],
        list(targets),
        [new_root / file.path for file in targets],
        sum(file.length >= LONG for file in targets),
    )


def expand(
    old_root: Path,
    sources: Sequence[File],
    new_root: Path,
    targets: Sequence[File],
    base: Path,
) -> Sides | None:
    """Return both sides with their archives inflated; None where that is no use.

    Args:
        old_root: the old tree.
        sources: old files that may be copied from.
        new_root: the new tree.
        targets: files to make.
        base: an empty directory for what is inflated.

    Raises:
        OSError: the disk refused.

    Power cut: nothing reads the files in `base` again.
    """
    if not sources or not classic.is_here():
        return None
    after = _survey(new_root, targets, base)
    if not any(after):
        return None
    before = _survey(old_root, sources, base)
    common = {d for marks in before for d in finder.digests(marks)} & {
        d for marks in after for d in finder.digests(marks)
    }
    new = _Side(new_root, base, "new", common, Encoders())
    new_files = [
        new.take(*pair) for pair in enumerate(zip(targets, after, strict=True))
    ]
    if not new.rows:
        return None
    old = _Side(old_root, base, "old", common, None)
    read = [old.take(*pair) for pair in enumerate(zip(sources, before, strict=True))]
    new_files.sort(key=lambda part: order(part.length, part.path))
    encoders = new.table or (Encoder(6),)
    return Sides(
        [file for part in read for file in part.files],
        [path for part in read for path in part.paths],
        [file for part in new_files for file in part.files],
        [path for part in new_files for path in part.paths],
        sum(len(part.files) for part in new_files if part.length >= LONG),
        (old.rows, new.rows, _likes(old.names, new.names)),
        encoders,
    )


def _survey(root: Path, files: Sequence[File], base: Path) -> list[tuple[Mark, ...]]:
    """Return what lies in each file; nothing in one that is a whole program."""
    budget = Budget(base)
    out = []
    for file in files:
        view = finder.opened(root / file.path)
        budget.begin(len(view))
        marks = finder.survey(view, budget, file.path.rpartition("/")[2])
        budget.end()
        if len(marks) == 1 and isinstance(marks[0], Program):
            alone = marks[0].start == 0
            marks = () if alone else marks
        out.append(marks)
    return out


@dataclass(slots=True)
class _Taken:
    """A file, or the pieces of an archive."""

    path: str
    length: int
    files: list[File]
    paths: list[Path]


class _Side:
    """Inflates the archives of one side.

    Attributes:
        rows: of those that were.
        names: of their streams: the archive's path, and the stream's own name.
    """

    def __init__(
        self,
        root: Path,
        base: Path,
        kind: str,
        common: Collection[bytes],
        encoders: Encoders | None,
    ) -> None:
        self._root = root
        self._base = base
        self._kind = kind
        self._common = common
        self._encoders = encoders
        self.rows: list[layout.Rows] = []
        self.names: list[tuple[str, str]] = []

    @property
    def table(self) -> Sequence[Encoder]:
        """Return the encoders that were found."""
        return () if self._encoders is None else tuple(self._encoders.table)

    def take(self, place: int, pair: tuple[File, tuple[Mark, ...]]) -> _Taken:
        """Return a file as it is, or as pieces of what it is inflated.

        Raises:
            OSError: the disk refused.
        """
        file, marks = pair
        path = self._root / file.path
        as_it_is = _Taken(file.path, file.length, [file], [path])
        if not marks:
            return as_it_is
        known = len(self.names)
        pieces = _Pieces(self._base, f"{self._kind}{place}", file)
        try:
            streams = self._walk(finder.opened(path), marks, pieces, file.path)
        finally:
            pieces.end()
        if not streams and len(pieces.files) < 2:
            del self.names[known:]
            pieces.drop()
            return as_it_is
        lengths = tuple(piece.length for piece in pieces.files)
        self.rows.append((place, lengths, streams))
        return _Taken(file.path, sum(lengths), pieces.files, pieces.paths)

    def _walk(
        self, view: View, marks: Sequence[Mark], pieces: "_Pieces", path: str
    ) -> tuple[layout.Stream, ...]:
        """Write some bytes, inflated; return the streams in them."""
        streams = []
        at, last = 0, pieces.length
        for mark in marks:
            if isinstance(mark, Program):
                pieces.copy(view, at, mark.start)
                pieces.cut(mark.name)
                pieces.copy(view, mark.start, mark.end)
                pieces.cut("")
                at = mark.end
                continue
            if mark.digest in self._common:
                continue
            known_content = self._content(view, mark)
            if known_content is None:
                continue
            content, encoder = known_content
            pieces.copy(view, at, mark.start)
            gap, begin = pieces.length - last, pieces.length
            self.names.append((path, mark.name))
            inner = self._walk(content, mark.inner, pieces, path)
            last, at = pieces.length, mark.end
            streams.append(layout.Stream(gap, last - begin, encoder, inner))
        pieces.copy(view, at, len(view))
        return tuple(streams)

    def _content(self, view: View, mark: finder.Stream) -> tuple[View, int] | None:
        """Return what is in a stream, and the place of its encoder."""
        budget = Budget(self._base)
        budget.room = 1 << 62  # it was paid for when it was found
        packed = finder.inflated(view, mark.start, budget)
        if packed is None:
            return None  # it was one when it was found: the file has changed
        _, content = packed
        if self._encoders is None:
            return content, 0
        encoder = self._encoders.find(view, mark.start, mark.end, content)
        return None if encoder is None else (content, encoder)


@dataclass(slots=True)
class _Pieces:
    """Writes an archive, inflated, as files.

    Attributes:
        length: of all that was written.
        files: the pieces.
        paths: where they lie.
    """

    base: Path
    name: str
    archive: File
    length: int = 0
    files: list[File] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    _called: str = ""
    _file: BinaryIO | None = None
    _size: int = 0

    def copy(self, view: View, start: int, end: int) -> None:
        """Append bytes.

        Raises:
            OSError: the disk refused.

        Power cut: nothing reads the file again.
        """
        for at in range(start, end, _PIECE):
            if self._file is None:
                path = self.base / f"{self.name}-{len(self.files)}"
                self.paths.append(path)
                self._file = path.open("wb")
            data = view[at : min(end, at + _PIECE)]
            self._file.write(data)
            self._size += len(data)
            self.length += len(data)

    def cut(self, called: str) -> None:
        """Begin a piece of another name; none for the archive's own."""
        self.end()
        self._called = called

    def end(self) -> None:
        """End the piece that was begun, if one was."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        with self.paths[-1].open("rb") as file:
            digest = _digest(file)
        path = self.archive.path
        if self._called:
            path = f"{path}/{self._called}"
        piece = replaced(self.archive, path=path, sha256=digest, length=self._size)
        self.files.append(piece)
        self._size = 0

    def drop(self) -> None:
        """Delete what was written."""
        for path in self.paths:
            path.unlink()


def _digest(file: BinaryIO) -> str:
    state = sha256()
    while data := file.read(_PIECE):
        state.update(data)
    return state.hexdigest()


def _likes(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[int]:
    """Return which old stream each new one is like: of the same name, else the next."""
    exact: dict[tuple[str, str], list[int]] = {}
    loose: dict[str, list[int]] = {}
    for number, name in reversed(list(enumerate(old))):
        exact.setdefault(name, []).append(number)
        loose.setdefault(name[1], []).append(number)
    out: list[int] = []
    for name in new:
        behind = out[-1] + 1 if out else 0
        numbers = exact.get(name) or loose.get(name[1])
        if not numbers:
            out.append(min(behind, len(old)))
            continue
        out.append(numbers.pop() if len(numbers) > 1 else numbers[0])
    return out
