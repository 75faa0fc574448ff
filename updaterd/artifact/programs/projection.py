# SPDX-License-Identifier: Apache-2.0
"""Bring references along while a delta is applied (docs/formats.md, "References").

What one made file takes from old programs is known before it is made: from that
follows where everything in them went, and so what each reference has to become.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate

from updaterd.artifact import codecs, varint
from updaterd.artifact.programs import stream as images
from updaterd.artifact.script import MADE
from updaterd.core.frozen import record
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType
    from typing import Any

    from updaterd.artifact.apply.blocks import Block, Column
    from updaterd.artifact.codecs import Packed
    from updaterd.artifact.script import Script

MAX_OPERATIONS = 1 << 18
"""Of a delta whose references are re-aimed: all of them are kept, 10 MiB at most."""
MAX_BLOCKS = 1 << 12
"""That these lie in: each takes another 1.5 KiB, however few it has."""


@record
class _Made:
    """A made file with an image: where it begins and ends in the stream."""

    begin: int
    end: int
    image: Any


def prepare(  # noqa: PLR0913 - a bundle, and what it says of itself
    fd: int,
    packed: Packed,
    plan: Script,
    blocks: Iterable[Block],
    read: Callable[[int, int], bytes],
    *,
    arm: bool,
) -> Projection:
    """Return what re-aims the references of the delta bundle open at `fd`.

    Args:
        fd: of the bundle.
        packed: where its images stream lies.
        plan: its script.
        blocks: its operations.
        read: returns bytes of what they copy from.
        arm: there may be AArch64 programs: the bundle's codec says so.

    Raises:
        MalformedError: see `Projection`; or the stream is too long or broken.
    """
    data = codecs.read_whole(fd, packed, "images", limit=images.MAX_BYTES)
    return Projection(data, plan, blocks, read, implementation(), arm=arm)


_prepared: list[ModuleType] = []


def load() -> None:
    """Import what re-aims references: in the cage nothing can be."""
    _prepared.append(implementation())


def implementation() -> ModuleType:
    """Return what re-aims references: compiled, where there was a compiler."""
    if _prepared:
        return _prepared[0]
    try:
        from updaterd.artifact import _native  # noqa: PLC0415 - few bundles need it
    except ImportError:
        from updaterd.artifact.programs import projector  # noqa: PLC0415 - as above

        return projector
    return _native


class Projection:
    """Re-aims the references in what the operations copy, front to back."""

    def __init__(  # noqa: PLR0913 - as `prepare`
        self,
        data: bytes,
        plan: Script,
        blocks: Iterable[Block],
        read: Callable[[int, int], bytes],
        module: ModuleType,
        *,
        arm: bool = False,
    ) -> None:
        """Prepare to apply a delta.

        Args:
            data: the images stream.
            plan: the delta's script.
            blocks: its operations.
            read: returns bytes of what they copy from.
            module: whose Image and Projector to use.
            arm: there may be AArch64 programs.

        Raises:
            MalformedError: the images are impossible, or the operations too many, or
                a copy is not in one file that has an image.
        """
        sizes = [item.number for item in plan.items if item.kind == MADE]
        old = [file.length for file in plan.sources]
        count = len(old)
        known = images.decode(data, (*old, *sizes), module.Image, arm=arm)
        readable = [*range(count), *(count + place for place in plan.places)]
        lengths = [*old, *(sizes[place] for place in plan.places)]
        starts = list(accumulate(lengths, initial=0))[:-1]
        held = _bounded(blocks)
        self._firsts = array("q", [0])  # bytes made before each block
        self._firsts.extend(accumulate(block.offsets[-1] for block in held[:-1]))
        self._blocks = dict(enumerate(held))
        self._begun = 0  # of them; those before it are gone
        ends = list(accumulate(sizes))
        self._files = [
            _Made(ends[file - count] - sizes[file - count], ends[file - count], image)
            for file, image in known.items()
            if file >= count
        ]
        for file in self._files:
            self._check(file.begin)
            self._check(file.end)
        self._shifted = module.shifted
        self._next = 0  # of the files; those before it are done
        self._aimed = False  # at that one
        try:
            self._projector = module.Projector(
                read,
                array("q", starts),
                array("q", lengths),
                [known.get(file) for file in readable],
            )
        except ValueError as error:
            raise MalformedError(f"images: {error}") from error

    def blocks(self) -> Iterator[Block]:
        """Yield the operations, once: what was applied needs no memory any more."""
        for index in range(len(self._blocks)):
            self._blocks.pop(index - 1, None)
            self._begun = index
            yield self._blocks[index]

    def _check(self, place: int) -> None:
        """Check that no copy goes over a place in the stream.

        Raises:
            MalformedError: one does.
        """
        if not self._blocks:
            return
        index = bisect_right(self._firsts, place) - 1
        block, first = self._blocks[index], self._firsts[index]
        last = min(bisect_right(block.offsets, place - first), len(block.starts)) - 1
        at = first + block.offsets[last]
        if at < place < at + block.lengths[last]:
            raise MalformedError("operations: a copy goes into two programs")

    def project(
        self,
        data: bytearray,
        starts: Column,
        lengths: Column,
        places: Column,
        base: int,
    ) -> None:
        """Re-aim the references in the old bytes of copies, in place.

        Args:
            data: of the copies, one after another.
            starts: where they read.
            lengths: of them.
            places: where they go to in the stream, less `base`; ascending, and not
                before those of the last call.
            base: see `places`.

        Raises:
            MalformedError: an image is not of that file.
        """
        files = self._files
        while self._next < len(files) and files[self._next].end <= base + places[0]:
            self._next += 1
            self._aimed = False
        for index in range(self._next, len(files)):
            file = files[index]
            first = bisect_left(places, file.begin - base)
            if first == len(places):
                break
            last = bisect_left(places, file.end - base)
            if first == last:
                continue
            if index != self._next or not self._aimed:
                self._next, self._aimed = index, True
                self._aim(file)
            news = self._shifted(places[first:last], file.begin - base)
            counts = lengths[first:last]
            low = sum(lengths[:first])
            high = low + sum(counts) if last < len(places) else len(data)
            try:
                with memoryview(data)[low:high] as part:
                    self._projector.project(part, starts[first:last], counts, news)
            except ValueError as error:
                raise MalformedError(f"images: {error}") from error

    def _aim(self, file: _Made) -> None:
        """Learn from all copies into a file where everything goes.

        Raises:
            MalformedError: they are of too many pieces.
        """
        starts, lengths, news = array("q"), array("q"), array("q")
        low = max(bisect_right(self._firsts, file.begin) - 1, self._begun)
        for index in range(low, bisect_left(self._firsts, file.end)):
            block, base = self._blocks[index], self._firsts[index]
            first = bisect_left(block.offsets, file.begin - base)
            last = min(bisect_left(block.offsets, file.end - base), len(block.starts))
            starts.frombytes(memoryview(block.starts)[first:last].cast("B"))
            lengths.frombytes(memoryview(block.lengths)[first:last].cast("B"))
            news.frombytes(self._shifted(block.offsets[first:last], file.begin - base))
        try:
            self._projector.aim(file.image, starts, lengths, news)
        except ValueError as error:
            raise MalformedError(f"images: {error}") from error


def _bounded(blocks: Iterable[Block]) -> list[Block]:
    """Return all blocks.

    Raises:
        MalformedError: there are too many operations, or they make too much.
    """
    out: list[Block] = []
    count = total = 0
    for block in blocks:
        count += len(block.starts)
        if count > MAX_OPERATIONS or len(out) == MAX_BLOCKS:
            raise MalformedError("operations: too many for a delta with images")
        total += block.offsets[-1]
        if total > varint.MAX:
            raise MalformedError("operations: they make too much")
        out.append(block)
    return out
