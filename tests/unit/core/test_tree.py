# SPDX-License-Identifier: Apache-2.0
"""Links are followed through the listing's own links; names are seen by who reads."""

import pytest

from updaterd.core.tree import MAX_DEPTH, File, Link, check_path, check_tree, unseen
from updaterd.errors import MalformedError

HASH = "ab" * 32


def refused(*files):
    with pytest.raises(MalformedError) as caught:
        check_tree(files)
    return caught.value.code


@pytest.mark.parametrize(
    "links",
    [
        [("data/y", "."), ("data/evil", "y/" * 20 + "../" * 20 + "etc/passwd")],
        [("a/b/c", "../.."), ("a/b/d", "c/../x")],
        [("deep", "a/b/c"), ("a/b/c", "../../../x")],
        [("one", "a/two"), ("a/two", "../a/b/.."), ("x", "one/../../y")],
    ],
    ids=["itself", "up", "plain", "chain"],
)
def test_a_link_through_links_never_leaves_the_tree(links):
    assert refused(*(Link(*link) for link in links)) == "bad_link"


@pytest.mark.parametrize(
    "links", [[("a", "a")], [("a", "b/x"), ("b", "c"), ("c", "a")]]
)
def test_links_in_a_circle_are_refused(links):
    assert refused(*(Link(*link) for link in links)) == "bad_link"


def test_a_chain_is_as_long_as_linux_follows():
    chain = [Link(f"l{i}", f"l{i + 1}") for i in range(41)]
    check_tree(chain[1:])
    assert refused(*chain) == "bad_link"


def test_links_that_double_at_each_step_cost_no_more_than_their_text():
    doubling = [Link(f"l{i}", f"l{i + 1}/../l{i + 1}") for i in range(100_000)]
    assert refused(*doubling) == "bad_link"


def test_what_applications_ship_is_accepted():
    check_tree([
        Link("current/lib/libz.so", "libz.so.1"),
        Link("current/lib/libz.so.1", "libz.so.1.3"),
        File("current/lib/libz.so.1.3", HASH, 1, 0o755),
        Link("lib", "current/lib"),
        Link("share/lib", "../lib/../lib/libz.so"),
        Link("dangling", "not/there"),
        Link("root", "."),
    ])


def test_a_file_is_no_parent_whatever_sorts_between():
    between = [File(name, HASH, 1, 0o644) for name in ("a", "a-b", "a.b", "a/b")]
    assert refused(*between) == "bad_path"


@pytest.mark.parametrize(
    "code", [0x9B, 0x85, 0x202E, 0x2066, 0x2069, 0x2028, 0x200B, 0xFEFF, 0xE0041]
)
def test_a_name_with_a_character_that_nobody_sees_is_refused(code):
    with pytest.raises(MalformedError, match=f"U\\+{code:04X}"):
        check_path(f"bin/a{chr(code)}b")


def test_a_tree_too_deep_for_a_machine_is_called_so():
    check_path("d/" * (MAX_DEPTH - 1) + "f")
    with pytest.raises(MalformedError) as caught:
        check_path("d/" * 140 + "f")
    assert caught.value.code == "too_deep"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("café", ""),
        ("日本/😀", ""),
        ("a\u202eb", "U+202E"),
        ("é\x7f", "U+007F"),
        ("\U0010fffe", "U+10FFFE"),
        ("\U0001ffff", "U+1FFFF"),
        ("\ufffd\U00020000", ""),
        ("\ud800", "U+D800"),
        ("\udfff", "U+DFFF"),
        ("\ue000\u2010\u3165", ""),
        ("\U000e0fff", "U+E0FFF"),
    ],
)
def test_the_first_character_that_nobody_sees_is_named(text, first):
    assert first == unseen(text)
