# SPDX-License-Identifier: Apache-2.0
"""The diff stream without its long runs of zeros.

Between two releases most of what is copied is copied unchanged, so the diff is zero
nearly everywhere. It is stored as runs: so many zeros, then so many bytes of the
`changes` stream. Blocks of up to 16384 runs, plane by plane:

    count u16 - 1; three planes of the gaps; two planes of the lengths

After the last run everything is zero. Gaps cost nothing to decode, and a compressor
sees all the changes of a release inside one window.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate, chain, compress, pairwise
from operator import add, sub

import bsdiff4.core

from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from updaterd.artifact.apply.blocks import Column
    from updaterd.artifact.codecs import Stream

BLOCK = 1 << 14
_RUN = 160  # zeros that cost the C core as much as a run costs Python
_WEAVE = 300  # and as much as bytes cost that are put in between
_MOST = 1 << 22  # bytes of a diff that are expanded at a time
_MANY = 1 << 12  # numbers from which on another import pays
_LONGEST_GAP = (1 << 24) - 1


class Dense:
    """A diff that is stored whole, as `bsdiff` does."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.skip = stream.skip
        self.finish = stream.finish

    def add(
        self, old: bytearray, lengths: Column, extras: Column, extra: bytes
    ) -> bytes:
        """Return `old` with the next bytes of the diff added, and `extra` woven in.

        Raises:
            MalformedError: the stream is broken, or too short.
        """
        diff = self._stream.read(len(old))
        size = len(old) + len(extra)
        return patch(bytes(old), size, triples(lengths, extras, None), diff, extra)


class Sparse:
    """Adds a diff to old bytes, knowing where it is zero."""

    def __init__(self, runs: Stream, changes: Stream) -> None:
        self._runs = runs
        self._changes = changes
        self._begins = array("Q")  # of the runs at hand, in the whole diff
        self._ends = array("Q")
        self._next = 0
        self._at = 0
        self._dense, self._used = b"", 0  # a block of short runs, already expanded

    def add(
        self, old: bytearray, lengths: Column, extras: Column, extra: bytes
    ) -> bytes | bytearray:
        """Return `old` with as many bytes of the diff added, and `extra` woven in.

        Raises:
            MalformedError: a stream is broken, or too short.
        """
        begins: list[int] = []
        ends: list[int] = []
        parts = []
        done = 0
        while done < len(old):
            count = min(len(old) - done, self._known())
            if self._dense:
                begins.append(done)
                ends.append(done + count)
                parts.append(self._slice(count))
            else:
                more, until = self._take(count, done)
                if more:
                    changed = sum(until) - sum(more)
                    parts.append(self._changes.read(changed))
                    begins += more
                    ends += until
            done += count
        changes = parts[0] if len(parts) == 1 else b"".join(parts)
        woven = sum(map(bool, extras)) if extra else 0
        slow = _RUN * len(begins) + _WEAVE * woven
        if (changes or extra) and len(old) - len(changes) < slow:
            diff = _spread(len(old), begins, ends, changes)
            size = len(old) + len(extra)
            control = triples(lengths, extras, None)
            return patch(bytes(old), size, control, diff, extra)
        patched = _scatter(old, begins, ends, changes) if changes else old
        return weave(patched, lengths, extra, extras) if extra else patched

    def skip(self, count: int) -> None:
        """Pass over `count` bytes of the diff.

        Raises:
            MalformedError: a stream is broken, or too short.
        """
        while count:
            step = min(count, self._known())
            count -= step
            if self._dense:
                self._slice(step)
                continue
            begins, ends = self._take(step, 0)
            self._changes.skip(sum(ends) - sum(begins))

    def finish(self) -> None:
        """Check that the diff ends here.

        Raises:
            MalformedError: runs or changes are left over.
        """
        if self._dense or self._next < len(self._ends):
            raise MalformedError("runs: not all of them are used")
        self._runs.finish()
        self._changes.finish()

    def _known(self) -> int:
        """Return for how many bytes from here the runs are at hand.

        Raises:
            MalformedError: a block is too large or cut short.
        """
        if self._next == len(self._ends) and not self._dense and self._runs.remaining:
            self._load()
        if self._dense:
            return len(self._dense) - self._used
        if self._next == len(self._ends):
            return sys.maxsize  # zeros to the end
        return self._ends[-1] - self._at

    def _slice(self, count: int) -> bytes:
        """Return the next bytes of the expanded block; move past them."""
        self._at += count
        end = self._used + count
        out = self._dense[self._used : end]
        self._used = end
        if end == len(self._dense):
            self._dense, self._used = b"", 0
        return out

    def _take(self, count: int, at: int) -> tuple[list[int], list[int]]:
        """Return where runs begin and end in the next `count` bytes; move past them.

        Args:
            count: of how many bytes of the diff.
            at: what the first of these is called.
        """
        first, stop = self._next, self._at + count
        last = bisect_left(self._begins, stop, first)
        low, self._at = self._at, stop
        self._next = bisect_right(self._ends, stop, first)
        if first == last:
            return [], []
        low -= at
        begins = [begin - low for begin in self._begins[first:last]]
        ends = [end - low for end in self._ends[first:last]]
        begins[0] = max(at, begins[0])  # some of it may be taken already
        ends[-1] = min(at + count, ends[-1])
        return begins, ends

    def _load(self) -> None:
        """Read the next block of runs.

        Raises:
            MalformedError: it is too large or cut short.
        """
        count = int.from_bytes(self._runs.read(2), "little") + 1
        if count > BLOCK:
            raise MalformedError("runs: a block is too large")
        planes = [self._runs.read(count) for _ in range(5)]
        zeros, changed = _total(planes[:3]), _total(planes[3:])
        short = max(zeros, changed) < _RUN * count and zeros + changed <= _MOST
        if short and b"\0" not in planes[3]:
            self._expand(planes, zeros, changed)
            return
        gaps, lengths = _column("I", planes[:3]), _column("H", planes[3:])
        if 0 in lengths and any(
            gap != _LONGEST_GAP
            for gap, length in zip(gaps, lengths, strict=True)
            if not length
        ):
            raise MalformedError("runs: one changes nothing")
        if short:
            self._expand(planes, zeros, changed)
            return
        after = accumulate(map(add, gaps, lengths), initial=self._at)
        next(after)
        self._ends = array("Q", after)
        self._begins = array("Q", map(sub, self._ends, lengths))
        self._next = 0

    def _expand(self, planes: Sequence[bytes], zeros: int, changed: int) -> None:
        """Make a whole block's diff; no Python code runs per run.

        Each triple is a run's changes, then the zeros before the next run: what
        bsdiff's core takes as extra it copies in one piece, the rest byte by byte.
        """
        count = len(planes[0])
        control = bytearray(24 * count + 24)
        for plane in range(3):
            control[8 + plane : -24 : 24] = planes[plane]
        for plane in range(2):
            control[24 + plane :: 24] = planes[3 + plane]
        changes = self._changes.read(changed)
        size = zeros + changed
        self._dense = patch(b"", size, bytes(control), changes, bytes(zeros))


def _column(kind: str, planes: Sequence[bytes]) -> array[int]:
    """Return the numbers whose bytes the planes are, lowest first."""
    width = array(kind).itemsize
    data = bytearray(width * len(planes[0]))
    for index, plane in enumerate(planes):
        data[index::width] = plane
    column = array(kind, bytes(data))
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _total(planes: Sequence[bytes]) -> int:
    """Return the sum of the numbers whose bytes the planes are, lowest first.

    The low half of an Adler-32 is one plus the sum of the bytes, as long as there
    are few of them; it takes a fifth of what `sum` does.
    """
    if len(planes[0]) < _MANY:
        return sum(sum(plane) << 8 * index for index, plane in enumerate(planes))
    from zlib import adler32  # noqa: PLC0415 - small deltas do without

    total = 0
    for index, plane in enumerate(planes):
        parts = [plane[at : at + 256] for at in range(0, len(plane), 256)]
        # 1 + 256 * 255 is less than the modulus, 65521
        plane_sum = sum((adler32(part) & 0xFFFF) - 1 for part in parts)
        total += plane_sum << 8 * index
    return total


def _scatter(
    old: bytearray, begins: Sequence[int], ends: Sequence[int], changes: bytes
) -> bytearray:
    """Add the changes in place; what lies between is never touched."""
    gaps = map(sub, begins, chain((0,), ends))
    lengths = list(map(sub, ends, begins))
    # bsdiff's core skips first, then adds: (0, 0, gap), (length, 0, gap), ...
    control = triples((0, *lengths), None, (*gaps, 0))
    changed = patch(bytes(old), len(changes), control, changes, b"")
    at, view = 0, memoryview(changed)
    for begin, end in zip(begins, ends, strict=True):
        old[begin:end] = view[at : (at := at + end - begin)]
    return old


def _spread(
    count: int, begins: Sequence[int], ends: Sequence[int], changes: bytes
) -> bytes:
    """Return `count` bytes of the diff, with its zeros: fast to add if most are not."""
    if len(changes) == count:
        return changes
    gaps = list(map(sub, (*begins, count), (0, *ends)))
    zeros, view = bytes(count - len(changes)), memoryview(changes)
    if len(changes) < _RUN * len(begins):
        lengths = (0, *map(sub, ends, begins))
        return patch(b"", count, triples(lengths, gaps, None), changes, zeros)
    parts: list[bytes | memoryview] = [zeros] * (2 * len(begins) + 1)
    parts[0::2] = [zeros[:gap] for gap in gaps]
    cuts = list(accumulate(map(sub, ends, begins), initial=0))
    parts[1::2] = [view[a:b] for a, b in pairwise(cuts)]
    return b"".join(parts)


def weave(
    copied: bytes | bytearray,
    lengths: Sequence[int],
    extra: bytes,
    extras: Sequence[int],
) -> bytes:
    """Return both streams in one: so much of this, so much of that, again and again."""
    if not copied:
        return extra
    # Most operations have no extra: cut only where there is some.
    cuts = list(compress(accumulate(lengths), extras))
    counts = [count for count in extras if count]
    view, new = memoryview(copied), memoryview(extra)
    old_cuts = map(slice, chain((0,), cuts), (*cuts, len(copied)))
    ends = list(accumulate(counts))
    new_cuts = map(slice, chain((0,), ends), ends)
    parts: list[memoryview] = [view[:0]] * (2 * len(cuts) + 1)
    parts[0::2] = map(view.__getitem__, old_cuts)
    parts[1::2] = map(new.__getitem__, new_cuts)
    return b"".join(parts)


def triples(
    lengths: Sequence[int], extras: Sequence[int] | None, skips: Sequence[int] | None
) -> bytes:
    """Return control triples as bsdiff's core takes them; none of them negative."""
    control = array("q", bytes(24 * len(lengths)))
    for place, column in enumerate((lengths, extras, skips)):
        if column is not None:
            ready = isinstance(column, array) and column.typecode == "q"
            words: array[int] = column if ready else array("q", column)  # type: ignore[assignment]  # narrowed by `ready`
            control[place::3] = words
    if sys.byteorder == "big":
        control.byteswap()
    return control.tobytes()


def patch(old: bytes, size: int, control: bytes, diff: bytes, extra: bytes) -> bytes:
    """Return what bsdiff's core makes; everything in `control` was checked."""
    out: bytes = bsdiff4.core.patch(old, size, control, diff, extra)
    return out
