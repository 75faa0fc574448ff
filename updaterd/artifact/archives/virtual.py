# SPDX-License-Identifier: Apache-2.0
"""A delta between inflated files: the same operations, over other addresses.

What operations read and make is pieces: an archive, inflated, is cut into some, each
other file is one. So a program in an archive is a file of its own, with an image.
"""

from __future__ import annotations

import os

from updaterd.artifact import codecs
from updaterd.artifact.apply.old_files import open_file
from updaterd.artifact.apply.output import Output, Outputs
from updaterd.artifact.archives import layout
from updaterd.artifact.archives.deflating import Deflated
from updaterd.artifact.archives.inflating import Allowance, DamagedError, inflate
from updaterd.artifact.archives.scratch import Scratch
from updaterd.artifact.folders import Folders
from updaterd.artifact.script import LONG, MADE, Item, Script
from updaterd.core.frozen import replaced
from updaterd.core.tree import File
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from updaterd.artifact.archives.layout import Archive, Layout
    from updaterd.artifact.codecs import Packed


def order(length: int, path: str) -> tuple[bool, bytes]:
    """Return what made files are sorted by: long ones first, inflated, then by path."""
    return length < LONG, path.encode()


def prepare(fd: int, packed: Packed, plan: Script) -> Virtual:
    """Return the delta that the archives stream of a bundle makes of its script.

    Raises:
        MalformedError: it is impossible.
    """
    data = codecs.read_whole(fd, packed, "archives", limit=layout.MAX_BYTES)
    return Virtual(data, plan)


class Virtual:
    """What operations read and make.

    Attributes:
        script: pieces in place of files.
        rows: path, inflated length and mode of the made files, in stream order.
    """

    def __init__(self, data: bytes, plan: Script) -> None:
        """Parse the archives stream.

        Raises:
            MalformedError: it is impossible.
        """
        if plan.places:
            raise MalformedError("archives: made sources are named twice")
        items_made = [item for item in plan.items if item.kind == MADE]
        self._layout: Layout = layout.decode(
            data, [file.length for file in plan.sources], [i.number for i in items_made]
        )
        new = {archive.place: archive for archive in self._layout.new}
        self._old = {archive.place: archive for archive in self._layout.old}
        self._new: dict[str, tuple[Archive, int]] = {}
        rows = []
        for place, item in enumerate(items_made):
            archive = new.get(place)
            length = item.number if archive is None else archive.length
            rows.append((item.path, length, item.mode))
            if archive is not None:
                self._new[item.path] = archive, item.number
        rows.sort(key=lambda row: order(row[1], row[0]))
        self.rows = rows
        self._first: dict[str, int] = {}  # of the pieces of each made archive
        items: list[Item] = []
        for path, length, mode in rows:
            pieces: Sequence[int] = (length,)
            if path in self._new:
                self._first[path] = len(items)
                pieces = self._new[path][0].pieces
            items += [Item(path, MADE, mode, size) for size in pieces]
        sources: list[File] = []
        self._pieces: dict[int, int] = {}  # the first of each old archive
        for place, file in enumerate(plan.sources):
            archive = self._old.get(place)
            if archive is None:
                sources.append(file)
            else:
                self._pieces[place] = len(sources)
                sources += [replaced(file, length=size) for size in archive.pieces]
        self.script = Script((), tuple(items), tuple(sources), self._layout.places)
        self._places = {  # of pieces that are read again, among what is read
            piece: len(sources) + at for at, piece in enumerate(self._layout.places)
        }
        self._plan = plan

    @property
    def inside(self) -> frozenset[int]:
        """Return the places in virtual order of what is read inflated."""
        count = len(self.script.sources)
        old = (
            first + number
            for place, first in self._pieces.items()
            for number in range(len(self._old[place].pieces))
        )
        pieces_made = {
            first + number
            for path, first in self._first.items()
            for number in range(len(self._new[path][0].pieces))
        }
        again = (
            count + at
            for at, place in enumerate(self.script.places)
            if place in pieces_made
        )
        return frozenset((*old, *again))

    def inflate(self, root: Path | str | int, scratch: Scratch) -> None:
        """Inflate the old archives; one that is not what it was is left out.

        Raises:
            OSError: the disk refused.
        """
        scratch.inside = self.inside
        allowance = Allowance()
        with Folders(root) as folders:
            for place, archive in self._old.items():
                fd = open_file(folders, self._plan.sources[place])
                if fd is None:
                    continue
                base = scratch.length
                allowance.begin(self._plan.sources[place].length)
                try:
                    inflate(fd, archive.steps, scratch.write, allowance)
                except DamagedError:
                    continue
                finally:
                    os.close(fd)
                for number, size in enumerate(archive.pieces):
                    scratch.bases[self._pieces[place] + number] = base
                    base += size

    def outputs(
        self, outputs: Outputs, scratch: Scratch, done: Collection[str]
    ) -> Outputs:
        """Return what makes files, archives deflated.

        Args:
            outputs: makes files as they are.
            scratch: gets those that are read again, inflated.
            done: paths of files that are there already.
        """
        return _Outputs(self, outputs, scratch, done)

    def present(self, done: Collection[str]) -> frozenset[str]:
        """Return what need not be made again of what is there already.

        An archive that is read again is: what is read of it is inflated.
        """
        return frozenset(path for path in done if not self._again(path))

    def _again(self, path: str) -> list[tuple[int, int]]:
        """Return the places of an archive's pieces that are read again, and offsets."""
        if path not in self._new:
            return []
        first = self._first[path]
        out, at = [], 0
        for number, size in enumerate(self._new[path][0].pieces):
            place = self._places.get(first + number)
            if place is not None:
                out.append((place, at))
            at += size
        return out

    def output(
        self,
        outputs: Outputs,
        scratch: Scratch,
        done: Collection[str],
        row: tuple[str, int],
    ) -> Output:
        """Return a new file to write, which may be an archive.

        Raises:
            OSError: it exists, or the disk refused.
        """
        path, mode = row
        if path not in self._new:
            return outputs.create(path, mode)
        archive, length = self._new[path]
        again = self._again(path)
        for place, offset in again:
            scratch.bases[place] = scratch.length + offset
        return Deflated(
            None if path in done else outputs.create(path, mode),
            archive.steps,
            self._layout.encoders,
            length,
            scratch if again else None,
        )


class _Outputs(Outputs):
    """Makes the files of a delta with archives."""

    def __init__(
        self,
        virtual: Virtual,
        outputs: Outputs,
        scratch: Scratch,
        done: Collection[str],
    ) -> None:
        self._virtual = virtual
        self._outputs = outputs
        self._scratch = scratch
        self._done = done

    def create(self, path: str, mode: int) -> Output:
        """Return a new file to write.

        Raises:
            OSError: it exists, or the disk refused.
        """
        row = path, mode
        return self._virtual.output(self._outputs, self._scratch, self._done, row)

    def close(self) -> None:
        """Close the directories, and a file that its bundle did not finish."""
        self._outputs.close()
