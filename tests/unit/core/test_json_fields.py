# SPDX-License-Identifier: Apache-2.0
"""JSON from outside: read exactly, or refused with a typed error."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import json_fields
from updaterd.errors import MalformedError


def read(raw, limit=10_000):
    return json_fields.parse_object(raw, where="test", limit=limit)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"{}{}",
        b"\xff{}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1,"a":2}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":9007199254740993}',
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b'{"a":' + b"[" * 9000 + b"]" * 900,
        b'{"a":"' + b'\\"' + b"[" * 40,
    ],
    ids=repr,
)
def test_parser_bombs_and_nonsense_are_refused(raw):
    with pytest.raises(MalformedError):
        read(raw)


def test_size_is_checked_before_anything_is_parsed():
    with pytest.raises(MalformedError, match="limit"):
        read(b"{" * 11, limit=10)


def test_brackets_inside_strings_do_not_count_as_nesting():
    text = "[{" * 100 + '\\"'

    assert text == read(json.dumps({"a": text}).encode()).text("a")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_typed_error(raw):
    with contextlib.suppress(MalformedError):
        read(raw)


@given(
    st.dictionaries(
        st.text(),
        st.recursive(st.integers(-(2**53) + 1, 2**53 - 1), st.lists, max_leaves=8),
    )
)
def test_what_we_encode_we_read(document):
    again = json.loads(json_fields.encode(document))

    assert document == again
    read(json_fields.encode(document), limit=10**6)


@pytest.mark.parametrize("value", [True, 1.5, "1", None, [], {}, -1, 11])
def test_integer_is_an_integer_in_range(value):
    """Also not a boolean, which Python would take for one."""
    with pytest.raises(MalformedError):
        read(json.dumps({"a": value}).encode()).integer("a", low=0, high=10)


@pytest.mark.parametrize("value", [0, None, True, "x" * 300, "\ud800"])
def test_text_is_short_unicode(value):
    with pytest.raises(MalformedError):
        read(json.dumps({"a": value}).encode()).text("a")


@pytest.mark.parametrize("value", ["", "0" * 63, "0" * 65, "g" * 64, "A" * 64, 1])
def test_hash_is_64_lower_case_hexadecimal_digits(value):
    with pytest.raises(MalformedError):
        read(json.dumps({"a": value}).encode()).hexdigest("a")


def test_lists_are_bounded_and_hold_objects():
    fields = read(b'{"many":[{},{},{}],"mixed":[{},1],"none":{}}')

    for name, most in (("many", 2), ("mixed", 9), ("none", 9), ("absent", 9)):
        with pytest.raises(MalformedError):
            fields.objects(name, lambda item: item, most=most)


def depth_of(text):
    """Return the deepest nesting outside of strings, character by character."""
    depth = deepest = 0
    inside = escaped = False
    for character in text:
        if inside:
            inside = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


@given(st.text('"\\[]{}a,\n'))
def test_depth_is_that_of_brackets_outside_of_strings(text):
    """Whatever is open, escaped or wrong in between."""
    for lead in (27, 30, 32):
        whole = "[" * lead + text
        refused = False
        try:
            json_fields.check_depth(whole, "test")
        except MalformedError:
            refused = True
        assert refused == (depth_of(whole) > json_fields.MAX_DEPTH)
