# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of groups lie: ranges of files, in both trees."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from updaterd.artifact.apply.old_files import digest
from updaterd.core.manifest import File
from updaterd.errors import BrokenError
from updaterd.release.bundles.grouping import Group
from updaterd.release.bundles.packing.reading import Range


@dataclass(frozen=True, slots=True)
class Piece:
    """What a group takes of one file.

    Attributes:
        file: which one.
        range: of its bytes.
        whole: these are all of them.
    """

    file: int
    range: Range
    whole: bool


class Ranges:
    """Where the bytes of groups lie, in both trees; every file is checked once."""

    def __init__(
        self,
        old_paths: Sequence[Path],
        old: Sequence[File],
        new_paths: Sequence[Path],
        targets: Sequence[File],
        places: Sequence[int],
    ) -> None:
        """Check the files.

        Args:
            old_paths: where the sources lie.
            old: these, in virtual order.
            new_paths: where the files to make lie.
            targets: these, in stream order.
            places: of the made files that follow the old ones in virtual order.

        Raises:
            BrokenError: one is not what its listing says.
        """
        self._targets = [
            (path, file.length) for path, file in zip(new_paths, targets, strict=True)
        ]
        self._virtual = [
            (path, file.length) for path, file in zip(old_paths, old, strict=True)
        ]
        for (path, _), file in zip(
            (*self._virtual, *self._targets), (*old, *targets), strict=True
        ):
            _check(path, file)
        self._virtual += [self._targets[place] for place in places]

    def old(self, group: Group) -> list[Piece]:
        """Return what a group is matched with; files by place in virtual order."""
        return [
            part for piece in group.pieces for part in _pieces(self._virtual, *piece)
        ]

    def new(self, group: Group) -> list[Piece]:
        """Return what a group makes; files by place in stream order."""
        return _pieces(self._targets, group.start, group.length)


def _pieces(files: Sequence[tuple[Path, int]], at: int, length: int) -> list[Piece]:
    starts = list(accumulate((size for _, size in files), initial=0))
    out = []
    index = bisect_right(starts, at) - 1
    while length:
        path, size = files[index]
        offset = at - starts[index]
        count = min(length, size - offset)
        if count:
            whole = count == size
            out.append(Piece(index, (str(path), offset, count), whole=whole))
        at, length, index = at + count, length - count, index + 1
    return out


def _check(path: Path, file: File) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sound = digest(fd) == file.sha256
    finally:
        os.close(fd)
    if not sound:
        raise BrokenError(
            f"{path} changed while the delta was made",
            do="leave the trees alone while they are pushed",
            code="tree_changed",
        )
