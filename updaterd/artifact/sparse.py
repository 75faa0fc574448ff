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
from itertools import accumulate, chain
from operator import add, sub

import bsdiff4.core

from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from updaterd.artifact.codecs import Stream

BLOCK = 1 << 14
_WORTH = 160  # zeros that cost the C core as much as a run costs Python
_MOST = 1 << 22  # bytes of a diff that are expanded at a time
_LONGEST_GAP = (1 << 24) - 1


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

    def add(self, old: bytes) -> bytes | bytearray:
        """Return `old` with as many bytes of the diff added.

        Raises:
            MalformedError: a stream is broken, or too short.
        """
        done = 0
        parts: list[bytes | bytearray] = []
        while done < len(old):
            count = min(len(old) - done, self._known())
            piece = old if count == len(old) else old[done : done + count]
            done += count
            if self._dense:
                parts.append(_add(piece, self._slice(count)))
                continue
            begins, ends = self._take(count)
            changed = sum(ends) - sum(begins)
            if changed:
                changes = self._changes.read(changed)
                scattered = count - changed > _WORTH * len(begins)
                apply = _scatter if scattered else _spread
                parts.append(apply(piece, begins, ends, changes))
            else:
                parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

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
            begins, ends = self._take(step)
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
        if self._next == len(self._ends) and not self._dense and self._runs.left:
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

    def _take(self, count: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return where runs begin and end in the next `count` bytes; move past them."""
        first, stop = self._next, self._at + count
        last = bisect_left(self._begins, stop, first)
        low, self._at = self._at, stop
        self._next = bisect_right(self._ends, stop, first)
        if first == last:
            return (), ()
        begins = [begin - low for begin in self._begins[first:last]]
        ends = [end - low for end in self._ends[first:last]]
        begins[0] = max(0, begins[0])  # some of it may be taken already
        ends[-1] = min(count, ends[-1])
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
        wide, narrow = bytearray(4 * count), bytearray(2 * count)
        for plane in range(3):
            wide[plane::4] = planes[plane]
        for plane in range(2):
            narrow[plane::2] = planes[3 + plane]
        gaps, lengths = array("I", bytes(wide)), array("H", bytes(narrow))
        if sys.byteorder == "big":
            gaps.byteswap()
            lengths.byteswap()
        if 0 in lengths and any(
            gap != _LONGEST_GAP
            for gap, length in zip(gaps, lengths, strict=True)
            if not length
        ):
            raise MalformedError("runs: one changes nothing")
        zeros, changed = sum(gaps), sum(lengths)
        if zeros < _WORTH * count and zeros + changed <= _MOST:
            self._expand(planes, zeros, changed)
            return
        after = accumulate(map(add, gaps, lengths), initial=self._at)
        next(after)
        self._ends = array("Q", after)
        self._begins = array("Q", map(sub, self._ends, lengths))
        self._next = 0

    def _expand(self, planes: Sequence[bytes], zeros: int, changed: int) -> None:
        """Make a whole block's diff; no Python code runs per run."""
        control = bytearray(24 * len(planes[0]))
        for plane in range(3):
            control[plane::24] = planes[plane]
        for plane in range(2):
            control[8 + plane :: 24] = planes[3 + plane]
        changes = self._changes.read(changed)
        size = zeros + changed
        self._dense = patch(b"", size, bytes(control), bytes(zeros), changes)


def _add(old: bytes, diff: bytes) -> bytes:
    return patch(old, len(old), triples((len(old),), None, None), diff, b"")


def _scatter(
    old: bytes, begins: Sequence[int], ends: Sequence[int], changes: bytes
) -> bytearray:
    """Add the changes to where they belong; what lies between is never touched."""
    gaps = map(sub, begins, chain((0,), ends))
    lengths = list(map(sub, ends, begins))
    # bsdiff's core skips first, then adds: (0, 0, gap), (length, 0, gap), ...
    changed = patch(
        old, len(changes), triples((0, *lengths), None, (*gaps, 0)), changes, b""
    )
    out, at = bytearray(old), 0
    view = memoryview(changed)
    for begin, end in zip(begins, ends, strict=True):
        out[begin:end] = view[at : (at := at + end - begin)]
    return out


def _spread(
    old: bytes, begins: Sequence[int], ends: Sequence[int], changes: bytes
) -> bytes:
    """Add the changes with zeros between them: fast where runs are many and short."""
    count = len(old)
    if len(changes) == count:
        diff = changes
    else:
        gaps = (*map(sub, begins, chain((0,), ends)), count - ends[-1])
        lengths = (*map(sub, ends, begins), 0)
        zeros = bytes(count - len(changes))
        diff = patch(b"", count, triples(gaps, lengths, None), zeros, changes)
    return _add(old, diff)


def triples(
    lengths: Sequence[int], extras: Sequence[int] | None, skips: Sequence[int] | None
) -> bytes:
    """Return control triples as bsdiff's core takes them; none of them negative."""
    control = array("q", bytes(24 * len(lengths)))
    control[0::3] = array("q", lengths)
    if extras is not None:
        control[1::3] = array("q", extras)
    if skips is not None:
        control[2::3] = array("q", skips)
    if sys.byteorder == "big":
        control.byteswap()
    return control.tobytes()


def patch(old: bytes, size: int, control: bytes, diff: bytes, extra: bytes) -> bytes:
    """Return what bsdiff's core makes; everything in `control` was checked."""
    out: bytes = bsdiff4.core.patch(old, size, control, diff, extra)
    return out
