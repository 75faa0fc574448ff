# SPDX-License-Identifier: Apache-2.0
"""Match programs without what moves in them, then re-aim it (docs/formats.md, images).

One inserted instruction changes every reference across it, so a matcher finds little
that is alike, and much where nothing is. So programs are matched twice: first with the
references blanked; that says what moved where. Then with each reference replaced by
what it means: its target, in old programs as moved. What readers do is the same as
`subtract` at the end; how the copies were found is nobody else's business.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from types import ModuleType

from updaterd.errors import BrokenError
from updaterd.release.bundles import matching
from updaterd.release.bundles.matching import Cover
from updaterd.release.bundles.packing.reading import Joined, Range, whole, writable

Images = Sequence[str | None]
"""For each file: where the rows of its image are (`save`), or None."""


@cache
def compiled() -> ModuleType | None:
    """Return the compiled module that does it, or None: it was not built here.

    The reader has a twin of it in Python, which would take minutes here.
    """
    with suppress(ImportError):
        return import_module("updaterd.artifact._native")
    return None


def save(path: Path, segments: bytes, regions: bytes, tables: bytes) -> None:
    """Write the rows of an image to where a task can read them.

    Raises:
        OSError: the disk refused.

    Power cut: nothing reads the file again.
    """
    rows = segments, regions, tables
    path.write_bytes(array("Q", map(len, rows)).tobytes() + b"".join(rows))


def _load(path: str) -> list[bytes]:
    data = Path(path).read_bytes()
    head = array("Q", data[:24])
    ends = list(accumulate(head, initial=24))
    return [data[low:high] for low, high in pairwise(ends)]


class Side:
    """The old or the new files of a group, one after another."""

    def __init__(self, ranges: Sequence[Range], images: Images) -> None:
        """Read the images.

        Args:
            ranges: whole files.
            images: of them.

        Raises:
            BrokenError: the compiled module is not there any more.
            OSError: the disk refused.
        """
        native = compiled()
        if native is None:
            raise BrokenError(
                "the compiled module is gone", do="install updaterd again"
            )
        self.ranges = ranges
        self.images = [
            None if path is None else native.Image(*_load(path)) for path in images
        ]
        self.starts = list(accumulate((count for _, _, count in ranges), initial=0))
        self._make = native.Projector
        self.forget()

    def forget(self) -> None:
        """Give back what was learnt of the references: it is found again."""
        self.projector = self._make(
            Joined(self.ranges).read,
            array("q", self.starts[:-1]),
            array("q", (count for _, _, count in self.ranges)),
            self.images,
        )

    def file(self, at: int) -> int:
        """Return the index of the file that holds a byte."""
        return bisect_right(self.starts, at) - 1

    def programs(self) -> list[int]:
        """Return the indices of the files that have an image."""
        return [i for i, image in enumerate(self.images) if image is not None]

    def masked(self, out: Path) -> None:
        """Write the files with their references blanked.

        Raises:
            BrokenError: a file changed meanwhile.
            OSError: the disk refused.

        Power cut: nothing reads the file again.
        """
        data = writable(self.ranges)
        for index in self.programs():
            self.projector.mask(data, index)
        out.write_bytes(data)


class Group:
    """One group's old and new files."""

    def __init__(self, old: Side, new: Side, base: str, room: int) -> None:
        """Take both sides.

        Args:
            old: one side.
            new: the other.
            base: what the names of files begin with that are in the making.
            room: bytes of memory that matching may take.
        """
        self._old = old
        self._new = new
        self._paths = Path(f"{base}.before"), Path(f"{base}.after")
        self._room = room

    def find(self, matcher: str) -> list[Cover]:
        """Return what can be copied, none of it across the ends of files.

        Args:
            matcher: by name (`matching.find`).

        Raises:
            BrokenError: a file changed meanwhile, or the matcher is not there.
            OSError: the disk refused.
        """
        for side, path in zip((self._old, self._new), self._paths, strict=True):
            side.masked(path)
        self._labelled(list(self._cut(self._match(matcher))))
        self._old.forget()
        self._new.forget()
        covers = list(self._cut(self._match(matcher)))
        for path in self._paths:
            path.unlink()
        return covers

    def _match(self, matcher: str) -> Iterator[Cover]:
        """Yield what the two files in the making have in common."""
        old, new = (str(path) for path in self._paths)
        sizes = self._old.starts[-1], self._new.starts[-1]
        for low, count, first, width in matching.windows(*sizes, self._room):
            sides = whole([(old, first, width)]), whole([(new, low, count)])
            covers = matching.find(*sides, matcher)
            del sides
            for new_at, old_at, size in covers:
                yield low + new_at, first + old_at, size

    def _cut(self, covers: Iterable[Cover]) -> Iterator[Cover]:
        """Yield covers cut where a file ends, on either side."""
        for cover in covers:
            new_at, old_at, rest = cover
            while rest:
                old_end = self._old.starts[self._old.file(old_at) + 1]
                new_end = self._new.starts[self._new.file(new_at) + 1]
                count = min(rest, old_end - old_at, new_end - new_at)
                yield new_at, old_at, count
                new_at, old_at, rest = new_at + count, old_at + count, rest - count

    def _labelled(self, covers: list[Cover]) -> None:
        """Write both sides, each reference replaced by what it is aimed at.

        An old file that several are made from is labelled for the one that copies
        most from it.
        """
        old, new = self._old, self._new
        copied = Counter[tuple[int, int]]()
        for new_at, old_at, count in covers:
            copied[old.file(old_at), new.file(new_at)] += count
        after = writable(new.ranges)
        for index in new.programs():
            new.projector.label(after, index, False)
        self._paths[1].write_bytes(after)
        del after
        before = writable(old.ranges)
        best = {
            index: max(new.programs(), key=lambda m: (copied[index, m], -m))
            for index in old.programs()
        }
        for target in new.programs():
            olds = [
                index for index, best_target in best.items() if best_target == target
            ]
            if olds:
                self._aim(target, covers)
            for index in olds:
                old.projector.label(before, index, True)
        self._paths[0].write_bytes(before)

    def _aim(self, target: int, covers: Sequence[Cover]) -> None:
        """Have the old references aimed at a new program."""
        image = self._new.images[target]
        assert image is not None
        low, high = self._new.starts[target : target + 2]
        first = bisect_left(covers, low, key=_place)
        last = bisect_left(covers, high, key=_place)
        self._old.projector.aim(image, *_columns(covers[first:last], low))

    def subtract(self, covers: Sequence[Cover]) -> tuple[bytearray, bytearray]:
        """Return the diff to what the old bytes become, and what is new.

        Raises:
            BrokenError: a file changed meanwhile.
            OSError: the disk refused.
        """
        aimed = -1

        def change(data: bytearray, parts: Sequence[Cover]) -> None:
            nonlocal aimed
            at = 0
            for target, run in groupby(parts, lambda p: self._new.file(p[0])):
                copies = list(run)
                count = sum(size for _, _, size in copies)
                if self._new.images[target] is not None:
                    if target != aimed:
                        self._aim(target, covers)
                        aimed = target
                    piece = data[at : at + count]
                    low = self._new.starts[target]
                    self._old.projector.project(piece, *_columns(copies, low))
                    data[at : at + count] = piece
                at += count

        old, new = whole(self._old.ranges), whole(self._new.ranges)
        return matching.streams(old, new, covers, change)


def _place(cover: Cover) -> int:
    return cover[0]


def _columns(
    covers: Sequence[Cover], low: int
) -> tuple["array[int]", "array[int]", "array[int]"]:
    """Return covers as starts, lengths and new places, these from `low` on."""
    return (
        array("q", (old_at for _, old_at, _ in covers)),
        array("q", (count for _, _, count in covers)),
        array("q", (new_at - low for new_at, _, _ in covers)),
    )
