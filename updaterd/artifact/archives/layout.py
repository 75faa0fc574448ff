# SPDX-License-Identifier: Apache-2.0
"""The archives stream: which deflate streams lie where (docs/formats.md, archives).

All numbers varints:
    encoders: count, then level, memory, strategy and window of each
    old archives: count, then their gaps among the sources
    new archives: count, then their gaps among the made files
    how many streams in the old ones, in the new ones
    for each archive, the old ones first: how many pieces; then, how many streams
    of each piece its length, inflated
    of each old stream, what lies in another behind that one: how many lie in it; then,
    the bytes before it; then, its length, inflated; then, its encoder
    of each new stream the same, but the old stream that it is like, as a distance from
    the one behind the last, folded; bytes and length less those of that one, folded
    made sources: count, then gaps among the pieces of the made files
"""

from __future__ import annotations

from array import array
from itertools import accumulate, pairwise

from updaterd.artifact import varint
from updaterd.artifact.classic import Encoder
from updaterd.core.frozen import record
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_BYTES = 4 * 2**20
"""Longest stream: 65,536 members on each side take about 1 MiB."""
MAX_ENCODERS = 64
MAX_STREAMS = 1 << 16
"""Of the old archives together, and of the new ones."""
MAX_PIECES = 1 << 14
"""Of both together, beyond one for each archive."""
MAX_DEPTH = 4
"""Streams in streams: an archive in an archive in an archive, packed as a whole."""
GROWTH, GROUND = 16, 1 << 28
"""Inflated, the archives of a side are at most so many times their length, and this."""
CLOSE = -1
_OPEN = -2


@record
class Stream:
    """A deflate stream in a file, or in another stream.

    Attributes:
        gap: bytes between it and what is before it in the same.
        length: of what is in it, with all that is inflated in there.
        encoder: place in the table of encoders.
        inner: the streams in it.
    """

    gap: int
    length: int
    encoder: int
    inner: tuple[Stream, ...] = ()


@record
class Archive:
    """A file with deflate streams in it.

    Attributes:
        place: of the file, among the sources or among the made files.
        pieces: lengths that its inflated bytes are cut into.
        steps: how it is inflated or deflated, front to back: a number of bytes that
            are copied; CLOSE, the end of a stream; less, the beginning of one
            (`encoder_of`).
    """

    place: int
    pieces: tuple[int, ...]
    steps: array[int]

    @property
    def length(self) -> int:
        """Return its length, inflated."""
        return sum(self.pieces)


@record
class Layout:
    """What a delta says of archives.

    Attributes:
        encoders: the table.
        old: sources that are inflated, by place.
        new: made files that are deflated, by place.
        places: of the pieces of made files that are read again, ascending.
    """

    encoders: tuple[Encoder, ...]
    old: tuple[Archive, ...]
    new: tuple[Archive, ...]
    places: tuple[int, ...]


def encoder_of(step: int) -> int:
    """Return the place of the encoder of a stream that begins with a step."""
    return _OPEN - step


Rows = tuple[int, tuple[int, ...], tuple[Stream, ...]]
"""Place, pieces and streams of an archive, for who writes."""


def flat(streams: Iterable[Stream]) -> Iterator[Stream]:
    """Yield streams, each followed by those in it."""
    for stream in streams:
        yield stream
        yield from flat(stream.inner)


def encode(
    encoders: Sequence[Encoder],
    old: Sequence[Rows],
    new: Sequence[Rows],
    likes: Sequence[int],
    places: Sequence[int],
) -> bytes:
    """Return the stream.

    Args:
        encoders: the table.
        old: sources that are inflated, by place.
        new: made files that are deflated, by place.
        likes: for each of the new streams the place of the old one that it is like, or
            how many old ones there are: none.
        places: of the pieces of made files that are read again.
    """
    before, after = (
        [stream for _, _, streams in side for stream in flat(streams)]
        for side in (old, new)
    )
    both = (*old, *new)
    out = [
        varint.pack(
            len(encoders),
            *(n for e in encoders for n in (e.level, e.memory, e.strategy, e.window)),
        )
    ]
    for side in (old, new):
        out += [varint.pack(len(side)), varint.gaps(place for place, _, _ in side)]
    out.append(varint.pack(len(before), len(after)))
    out.append(varint.pack(*(len(pieces) for _, pieces, _ in both)))
    out.append(varint.pack(*(len(streams) for _, _, streams in both)))
    out.append(varint.pack(*(length for _, pieces, _ in both for length in pieces)))
    out.append(varint.pack(*(len(stream.inner) for stream in before)))
    out.append(varint.pack(*(stream.gap for stream in before)))
    out.append(varint.pack(*(stream.length for stream in before)))
    out.append(varint.pack(*(stream.encoder for stream in before)))
    last = [-1, *likes]
    alike = [before[i] if i < len(before) else Stream(0, 0, 0) for i in likes]
    pairs = list(zip(after, alike, strict=True))
    out.append(varint.pack(*(len(stream.inner) for stream in after)))
    out.append(
        varint.pack(
            *(varint.fold(i - j - 1) for i, j in zip(likes, last, strict=False))
        )
    )
    out.append(varint.pack(*(varint.fold(a.gap - b.gap) for a, b in pairs)))
    out.append(varint.pack(*(varint.fold(a.length - b.length) for a, b in pairs)))
    out.append(varint.pack(*(stream.encoder for stream in after)))
    out += [varint.pack(len(places)), varint.gaps(places)]
    return b"".join(out)


def decode(data: bytes, sources: Sequence[int], new_lengths: Sequence[int]) -> Layout:
    """Return what the stream says.

    Args:
        data: the stream.
        sources: lengths of the old files that are read.
        new_lengths: of the made files.

    Raises:
        MalformedError: cut short, beyond a limit, or not of these files.
    """
    cursor = varint.Cursor(data, "archives")
    encoders = tuple(_encoder(cursor) for _ in range(cursor.number(MAX_ENCODERS)))
    old = cursor.indices(cursor.number(len(sources)), len(sources))
    new = cursor.indices(cursor.number(len(new_lengths)), len(new_lengths))
    counts = cursor.number(MAX_STREAMS), cursor.number(MAX_STREAMS)
    archives = len(old) + len(new)
    pieces = cursor.numbers(archives)
    if 0 in pieces or sum(pieces) > MAX_PIECES + archives:
        raise MalformedError("archives: none or too many pieces")
    tops = cursor.numbers(archives)
    lengths = cursor.numbers(sum(pieces))
    if 0 in lengths:
        raise MalformedError("archives: a piece is empty")
    ends = list(accumulate(pieces, initial=0))
    cut = [tuple(lengths[a:b]) for a, b in pairwise(ends)]
    for side, known, cuts in (
        (old, sources, cut[: len(old)]),
        (new, new_lengths, cut[len(old) :]),
    ):
        if sum(map(sum, cuts)) > GROWTH * sum(known[place] for place in side) + GROUND:
            raise MalformedError("archives: inflated, they are too long")
    before = _Table(cursor, counts[0], len(encoders), None)
    after = _Table(cursor, counts[1], len(encoders), before)
    olds = before.archives(old, tops, cut)
    news = after.archives(new, tops[len(old) :], cut[len(old) :])
    total = len(new_lengths) + sum(pieces[len(old) :]) - len(new)
    places = cursor.indices(cursor.number(total), total)
    cursor.end()
    return Layout(encoders, olds, news, tuple(places))


def _encoder(cursor: varint.Cursor) -> Encoder:
    """Return the next encoder.

    Raises:
        MalformedError: zlib knows no such one.
    """
    level, memory = cursor.number(9), cursor.number(9)
    strategy, window = cursor.number(4), cursor.number(15)
    if level < 1 or memory < 1 or window < 9:
        raise MalformedError("archives: an encoder that cannot be")
    return Encoder(level, memory, strategy, window)


class _Table:
    """The streams of one side, in columns."""

    def __init__(
        self, cursor: varint.Cursor, count: int, encoders: int, old: _Table | None
    ) -> None:
        """Read the columns.

        Args:
            cursor: where they are.
            count: of streams.
            encoders: how many there are.
            old: the streams that these may be like.

        Raises:
            MalformedError: cut short, or a number that cannot be.
        """
        self.gaps: array[int]
        self.lengths: array[int]
        self._inner = array("q", cursor.numbers(count))
        likes = None if old is None else _likes(cursor, count, len(old.gaps))
        self.gaps = array("q", cursor.numbers(count))
        self.lengths = array("q", cursor.numbers(count))
        if old is not None and likes is not None:
            self.gaps = _differing(self.gaps, old.gaps, likes)
            self.lengths = _differing(self.lengths, old.lengths, likes)
        if 0 in self.lengths:
            raise MalformedError("archives: a stream holds nothing")
        self._encoders = array("q", cursor.numbers(count))
        if count and max(self._encoders) >= encoders:
            raise MalformedError("archives: an encoder that is not in the table")
        self._next = 0

    def archives(
        self,
        places: Sequence[int],
        counts: Sequence[int],
        pieces: Sequence[tuple[int, ...]],
    ) -> tuple[Archive, ...]:
        """Return the archives of this side, and check that every stream is in one.

        Args:
            places: of their files.
            counts: of the streams in each, not counting those in these.
            pieces: of each.

        Raises:
            MalformedError: streams do not fit in one, are too deep, or in none.
        """
        out = []
        for place, count, lengths in zip(places, counts, pieces, strict=False):
            steps = array("q")
            self._walk(count, sum(lengths), 1, steps)
            out.append(Archive(place, lengths, steps))
        if self._next != len(self.gaps):
            raise MalformedError("archives: streams that are in no file")
        return tuple(out)

    def _walk(self, count: int, length: int, depth: int, out: array[int]) -> None:
        if count > len(self.gaps) - self._next or (count and depth > MAX_DEPTH):
            raise MalformedError("archives: too many streams, or too deep")
        for _ in range(count):
            at = self._next
            self._next += 1
            length -= self.gaps[at] + self.lengths[at]
            if length < 0:
                raise MalformedError("archives: a stream is longer than what it is in")
            out.append(self.gaps[at])
            out.append(_OPEN - self._encoders[at])
            self._walk(self._inner[at], self.lengths[at], depth + 1, out)
            out.append(CLOSE)
        out.append(length)


def _likes(cursor: varint.Cursor, count: int, olds: int) -> array[int]:
    """Return which old stream each new one is like; `olds` for none.

    Raises:
        MalformedError: there is no such one.
    """
    out = array("q")
    place = -1
    for step in cursor.numbers(count):
        place += 1 + varint.unfold(step)
        if not 0 <= place <= olds:
            raise MalformedError("archives: a stream is like none")
        out.append(place)
    return out


def _differing(column: array[int], old: array[int], likes: array[int]) -> array[int]:
    """Return numbers that are told as the distance from others.

    Raises:
        MalformedError: one is less than 0, or too large.
    """
    out = array("q")
    for difference, place in zip(column, likes, strict=True):
        number = varint.unfold(difference) + (old[place] if place < len(old) else 0)
        if not 0 <= number <= varint.MAX:
            raise MalformedError("archives: a length that cannot be")
        out.append(number)
    return out
