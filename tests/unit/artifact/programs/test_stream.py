# SPDX-License-Identifier: Apache-2.0
"""What the images stream says of programs arrives as it was, or is refused."""

import itertools

import pytest
from fakes.programs import program, rows
from hypothesis import given
from hypothesis import strategies as st

from updaterd.artifact.programs import stream as images
from updaterd.artifact.programs.image import FUNCTIONS, Image
from updaterd.artifact.varint import MAX, Cursor
from updaterd.artifact.varint import pack as number
from updaterd.errors import MalformedError

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, MAX))


def flat(parts):
    return rows(*itertools.chain.from_iterable(parts))


def _regions(items):
    out, end = [], 0
    for kind, gap, length, parameters in items:
        used = (0, 0, 0, 1, 5)[kind]
        row = [*parameters[:used], *[0] * (5 - used)]
        out.append((kind, end + gap, length, *row))
        end += gap + length
    return out


def _tables(items):
    out, end = [], 0
    for gap, entries in items:
        out.append((end + gap, entries))
        end += gap + 4 * entries
    return out


SHORT = st.integers(0, 1 << 40)
ROWS = st.tuples(
    st.lists(st.tuples(SHORT, NUMBERS, SHORT, NUMBERS, NUMBERS), max_size=32).map(flat),
    st
    .lists(
        st.tuples(st.integers(0, 4), SHORT, SHORT, st.lists(NUMBERS, min_size=5)),
        max_size=9,
    )
    .map(_regions)
    .map(flat),
    st.lists(st.tuples(SHORT, SHORT), max_size=9).map(_tables).map(flat),
)


@pytest.mark.slow
@given(st.dictionaries(st.integers(0, 60), ROWS, max_size=4))
def test_images_arrive_as_they_were(given):
    """Whether they make sense is for those to say that make something of them."""
    data = images.encode(given)
    lengths = [1 << 42] * 61

    assert images.decode(data, lengths, lambda *parts: parts) == given


@given(st.binary(max_size=200), st.integers(0, 5))
def test_random_bytes_are_refused_or_images(data, count):
    """Never another error."""
    try:
        made = images.decode(data, [1 << 20] * count, Image)
    except MalformedError:
        return
    assert len(made) <= count


@pytest.fixture
def honest():
    """A program's image, its stream, and the length of its file."""
    data, parts = program()
    return images.encode({1: parts}), [5, len(data)]


def test_a_stream_ends_with_its_last_image(honest):
    """Cut short anywhere, or longer by a byte: refused."""
    data, lengths = honest
    assert list(images.decode(data, lengths, Image)) == [1]
    for end in range(len(data)):
        with pytest.raises(MalformedError):
            images.decode(data[:end], lengths, Image)
    with pytest.raises(MalformedError):
        images.decode(data + b"\0", lengths, Image)


def test_an_image_belongs_to_a_file_that_has_its_bytes(honest):
    """Neither to one that is not there nor to one that is too short."""
    data, (_, length) = honest
    for lengths in ([], [5], [5, length - 1]):
        with pytest.raises(MalformedError):
            images.decode(data, lengths, Image)


def _stream(segments=(), regions=(), tables=(), count=1):
    return b"".join((
        number(count, 0),
        number(len(segments), *itertools.chain(*segments)),
        number(len(regions), *itertools.chain(*regions)),
        number(len(tables), *itertools.chain(*tables)),
    ))


ONE = [(0, 0, 99, 99, 1)]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(_stream(), id="no segments"),
        pytest.param(_stream(ONE * 33), id="too many segments"),
        pytest.param(_stream([(0, 0, 101, 101, 1)]), id="a segment over the end"),
        pytest.param(_stream([(MAX, 0, 99, 99, 1)]), id="a far segment"),
        pytest.param(_stream([(0, MAX, 99, 99, 1)]), id="a high segment"),
        pytest.param(_stream([(0, 0, 99, 98, 1)]), id="bytes without memory"),
        pytest.param(_stream([(0, 0, 99, 99, 2)]), id="a flag of two"),
        pytest.param(_stream(ONE, [(0, 0, 0)] * 257), id="too many regions"),
        pytest.param(_stream(ONE, [(5, 0, 1)]), id="an unknown region"),
        pytest.param(_stream(ONE, [(0, 0, 100)]), id="a long region"),
        pytest.param(_stream(ONE, [(0, 0, MAX), (0, 1, 0)]), id="a far region"),
        pytest.param(_stream(ONE, [(0, MAX, MAX)]), id="an endless region"),
        pytest.param(_stream(ONE, [(4, 0, 15, 2, 0, 0, 0, 0)]), id="no room"),
        pytest.param(_stream(ONE, [(4, 0, 99, MAX, 0, 0, 0, 0)]), id="functions"),
        pytest.param(_stream(ONE, [], [(0, 25)]), id="a long table"),
        pytest.param(_stream(ONE, [], [(0, 0)]), id="an empty table"),
        pytest.param(_stream(ONE, [], [(0, MAX)]), id="an endless table"),
        pytest.param(_stream(ONE, [(0, 0, 99)], [(0, 1)]), id="a table in code"),
        pytest.param(_stream(ONE, count=2), id="two announced"),
        pytest.param(number(4097) + _stream(ONE)[1:], id="too many images"),
        pytest.param(number(1, MAX) + _stream(ONE)[2:], id="a file far away"),
        pytest.param(
            _stream(ONE)[:-1] + number(1 << 16 | 1) + bytes(1 << 18), id="many tables"
        ),
    ],
)
def test_impossible_images_are_refused(stream):
    """By the reader, before anything is made of them."""
    lengths = [100]
    images.decode(_stream(ONE), lengths, Image)

    with pytest.raises(MalformedError, match="images"):
        images.decode(stream, lengths, Image)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "most"),
    [
        (number(256) + bytes(3 * 256) + b"\0", images.MAX_ALL_REGIONS // 256),
        (
            number(0, 1 << 16) + bytes(1 << 16) + b"\1" * (1 << 16),
            images.MAX_ALL_TABLES >> 16,
        ),
    ],
)
def test_images_have_so_many_parts_in_all(part, most):
    """Each may be possible: together they would take too much memory."""
    size = 1 << 18
    part = number(1, 0, 0, size, size, 0) + part

    def read(count):
        stream = number(count) + (b"\0" + part) * count
        return images.decode(stream, [size] * count, lambda *_: None)

    assert len(read(most)) == most
    with pytest.raises(MalformedError, match="in all"):
        read(most + 1)


@given(st.lists(NUMBERS, max_size=40), st.integers(0, 41))
def test_many_numbers_are_as_many_single_ones(values, count):
    """The short way round reads what the long one does."""
    data = number(*values)
    if count > len(values):
        with pytest.raises(MalformedError):
            Cursor(data, "it").numbers(count)
        return
    cursor = Cursor(data, "it")

    assert cursor.numbers(count) == values[:count]
    assert cursor.numbers(len(values) - count) == values[count:]
    cursor.end()


def test_regions_take_the_numbers_that_they_need():
    """Functions five, a table one, others none."""
    lengths = [100]
    kinds = [(0, 0, 4), (1, 0, 4), (2, 0, 4), (3, 0, 4, 7), (4, 0, 9, 1, 2, 3, 4, 5)]
    made = images.decode(_stream(ONE, kinds), lengths, Image)[0]

    assert made.regions[3] == (3, 12, 4, 7, 0, 0, 0, 0)
    assert made.regions[4] == (FUNCTIONS, 16, 9, 1, 2, 3, 4, 5)
