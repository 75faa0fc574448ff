# SPDX-License-Identifier: Apache-2.0
"""The tree script: what comes out is what went in, and nothing that cannot be."""

import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.artifact import script, varint
from updaterd.artifact.script import COPY, LINK, MADE, SAME, Item
from updaterd.core.tree import File, Link
from updaterd.errors import MalformedError

LENGTHS = st.one_of(st.integers(0, 300), st.integers(0, 2**50))
OLD = (
    File("a", "0" * 64, 100, 0o644),
    File("b", "1" * 64, 0, 0o755),
    Link("c", "a"),
    File("d", "2" * 64, 2**40, 0o644),
)


@given(
    st.lists(LENGTHS, min_size=4, max_size=4),
    st.lists(st.sampled_from([0, 1, 3]), max_size=9),
    st.booleans(),
)
def test_any_script_comes_out_as_it_went_in(lengths, sources, again):
    """Files longer and shorter than before, sources in any order and twice."""
    items = [
        Item("a", MADE, 0o755, lengths[0]),
        Item("b", COPY, 0o644, 3),
        Item("c", MADE, 0o644, lengths[1]),  # where a link was
        Item("d", MADE, 0o644, lengths[2]),
        Item("e", MADE, 0o600, lengths[3]),
        Item("f", SAME, 0o644, 0),
        Item("g", LINK, number=1, target="a"),
    ]
    raw = script.encode(OLD, items, sources, [0] if again else [], set())
    plan = script.decode(raw, OLD)

    assert tuple(sorted(items, key=script.order)) == plan.items
    assert tuple(OLD[index] for index in sources) == plan.sources
    assert ((0,) if again else ()) == plan.places


@given(st.integers(-(2**60), 2**60))
def test_folded_numbers(number):
    """Each has one form without a sign; small ones stay small."""
    folded = varint.fold(number)
    assert varint.unfold(folded) == number
    assert 0 <= folded <= 2 * abs(number)


@pytest.mark.parametrize("length", [-1, -(2**40), 2**53])
def test_an_impossible_length(length):
    """A file cannot have fewer bytes than none, nor more than a number holds."""
    raw = script.encode(OLD, [Item("a", MADE, 0o644, length)], [], [], {"b", "c", "d"})
    with pytest.raises(MalformedError):
        script.decode(raw, OLD)


@pytest.mark.parametrize("sources", [[-1], [4], [0, -1], [3, 4], [2**45], [2]])
def test_a_source_that_is_no_old_file(sources):
    """Before the first entry, after the last, or a link."""
    raw = script.encode(OLD, [], sources, [], {"a", "b", "c", "d"})
    with pytest.raises(MalformedError, match="a source is not a file"):
        script.decode(raw, OLD)


def test_files_that_keep_their_length_cost_nothing():
    """What is said of each is the same: 20,000 of them take a few bytes."""
    old = tuple(
        File(f"{n:05}", "0" * 64, n * 7919 % 50_000, 0o644) for n in range(20_000)
    )
    items = [Item(file.path, MADE, 0o644, file.length) for file in old]
    raw = script.encode(old, items, range(len(old)), [], set())
    assert len(lzma.compress(raw)) < 300
