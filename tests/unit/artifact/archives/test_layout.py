# SPDX-License-Identifier: Apache-2.0
"""The archives stream is hostile until its every number was compared with a limit."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.artifact import varint
from updaterd.artifact.archives import layout
from updaterd.artifact.archives.layout import Stream
from updaterd.artifact.classic import Encoder
from updaterd.errors import MalformedError

SOURCES, MADE = (1000, 2000, 3000), (500, 600)
ENCODERS = (Encoder(6), Encoder(9, 9))
OLD = [(0, (700, 900), (Stream(30, 500, 0, (Stream(1, 99, 1),)), Stream(7, 300, 0)))]
NEW = [(1, (1600,), (Stream(30, 501, 1, (Stream(1, 99, 1),)), Stream(9, 300, 0)))]


def encoded(old=OLD, new=NEW, likes=(0, 1, 2), places=(1,), encoders=ENCODERS):
    return layout.encode(encoders, old, new, likes, places)


def test_what_is_said_is_what_was_meant():
    found = layout.decode(encoded(), SOURCES, MADE)

    assert found.encoders == ENCODERS
    assert found.places == (1,)
    (old,), (new,) = found.old, found.new
    assert (old.place, old.pieces, old.length) == (0, (700, 900), 1600)
    assert list(old.steps) == [30, -2, 1, -3, 99, -1, 400, -1, 7, -2, 300, -1, 763]
    assert list(new.steps) == [30, -3, 1, -3, 99, -1, 401, -1, 9, -2, 300, -1, 760]


DEEP = Stream(0, 9, 0)
for _ in range(4):
    DEEP = Stream(0, 9, 0, (DEEP,))
ONE = {"likes": (1, 1, 1)}
IMPOSSIBLE = {
    "an encoder of no level": {"encoders": (Encoder(0), Encoder(6))},
    "a window that zlib lacks": {"encoders": (Encoder(6, 8, 0, 8), Encoder(6))},
    "an encoder that is not there": {"encoders": (Encoder(6),)},
    "a stream that holds nothing": {"old": [(0, (9,), (Stream(0, 0, 0),))], **ONE},
    "a stream over the end": {"old": [(0, (9,), (Stream(0, 10, 0),))], **ONE},
    "streams in four others": {"old": [(0, (9,), (DEEP,))], "likes": (5, 5, 5)},
    "a piece that is empty": {"old": [(0, (0, 1600), OLD[0][2])]},
    "no piece": {"old": [(0, (), OLD[0][2])]},
    "a bomb": {"old": [(0, (2**34,), OLD[0][2])]},
    "a file that is not there": {"old": [(3, (700, 900), OLD[0][2])]},
    "a made source beyond the pieces": {"places": (2,)},
}  # fmt: skip


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be_is_refused(what):
    with pytest.raises(MalformedError):
        layout.decode(encoded(**IMPOSSIBLE[what]), SOURCES, MADE)


def test_more_streams_than_anybody_has_are_refused_before_they_are_read():
    data = varint.pack(0, 1, 0, 0, 2**30, 0)

    with pytest.raises(MalformedError, match="beyond"):
        layout.decode(data, SOURCES, MADE)


@given(st.integers(0, 2**32))
def test_a_changed_byte_is_refused_or_means_something_possible(seed):
    draw = random.Random(seed)
    data = bytearray(encoded())
    for _ in range(draw.randrange(1, 4)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    try:
        found = layout.decode(bytes(data), SOURCES, MADE)
    except MalformedError:
        return
    for archive in (*found.old, *found.new):
        assert sum(step for step in archive.steps if step > 0) == archive.length
        assert archive.length <= 16 * sum(SOURCES) + 2**28
