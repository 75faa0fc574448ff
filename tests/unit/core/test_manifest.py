# SPDX-License-Identifier: Apache-2.0
"""A manifest describes one possible, harmless tree, or it is refused."""

import contextlib
import json
from dataclasses import replace

import pytest
from fakes.repository import manifest_of
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core import manifest
from updaterd.core.manifest import File, Full, Link
from updaterd.errors import MalformedError

HASH = "ab" * 32
GOOD = manifest_of(
    "acme",
    "1.0.0",
    1,
    files=(
        File("bin/app", HASH, 10, 0o755),
        Link("bin/app-1", "app"),
        Link("lib/up", "../bin/./app"),
        File("share/é", HASH, 0, 0o644),
    ),
    full=Full(sha256=HASH, length=7, unpacked=10, codec="full-1"),
)


def refused(document):
    with pytest.raises(MalformedError) as caught:
        manifest.parse(json.dumps(document).encode())
    return caught.value


def test_what_is_encoded_is_read():
    assert GOOD == manifest.parse(GOOD.encode())


def test_tree_id_does_not_depend_on_the_order_of_the_listing():
    assert GOOD.tree == replace(GOOD, files=GOOD.files[::-1]).tree
    assert GOOD.tree != replace(GOOD, files=GOOD.files[1:]).tree


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a/..",
        ".",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "a\nb",
        "a\x00b",
        "a\x7f",
        "x" * 256,
        "a/" * 512 + "b",
    ],
    ids=repr,
)
def test_path_traversal_is_refused(path):
    document = json.loads(GOOD.encode())
    document["files"][0]["path"] = path

    refused(document)


@pytest.mark.parametrize(
    "target",
    ["", "/etc/passwd", "..", "../..", "../../x", "x/../../../y", "a\nb", "x" * 2000],
    ids=repr,
)
def test_link_out_of_the_tree_is_refused(target):
    document = json.loads(GOOD.encode())
    document["files"][1] = {"path": "bin/evil", "symlink": target}
    if target == "..":  # stays inside: the tree's own top
        manifest.parse(json.dumps(document).encode())
        return

    refused(document)


def test_link_that_is_also_a_directory_is_refused():
    """Else a file "below" the link would be written wherever the link leads."""
    document = json.loads(GOOD.encode())
    document["files"][1] = {"path": "share", "symlink": "bin"}

    assert "bad_path" == refused(document).code


def test_duplicate_path_is_refused():
    document = json.loads(GOOD.encode())
    document["files"].append(document["files"][1])

    refused(document)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1755, 0o777, 0o775, 0o666])
def test_setuid_and_writable_modes_are_refused(mode):
    document = json.loads(GOOD.encode())
    document["files"][0]["mode"] = mode

    refused(document)


def test_sizes_that_do_not_add_up_are_refused():
    document = json.loads(GOOD.encode())
    document["full"]["unpacked"] = 11

    refused(document)


def test_newer_schema_says_to_update_the_updater():
    document = json.loads(GOOD.encode())
    document["schema"] = 3

    error = refused(document)
    assert "newer_schema" == error.code
    assert "update updaterd" in error.do


@pytest.mark.parametrize("name", list(json.loads(GOOD.encode())))
def test_every_member_is_required(name):
    document = json.loads(GOOD.encode())
    del document[name]

    refused(document)


@given(st.data())
def test_any_member_of_any_type_is_read_or_refused(data):
    document = json.loads(GOOD.encode())
    name = data.draw(st.sampled_from(sorted(document)))
    document[name] = data.draw(
        st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers()))
    )
    with contextlib.suppress(MalformedError):
        manifest.parse(json.dumps(document).encode())
