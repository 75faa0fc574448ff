# SPDX-License-Identifier: Apache-2.0
"""A listing is read alike however it is written, and has one tree id."""

import hashlib
import json
from dataclasses import replace

from fakes.repository import manifest_of
from hypothesis import example, given
from hypothesis import strategies as st

from updaterd.core import json_fields, listing, manifest
from updaterd.core.manifest import File, Full, Link, Manifest
from updaterd.errors import MalformedError

HASH = "ab" * 32
NAMES = st.one_of(
    st.text('ab.é \\"\n\x7f\u202e~', max_size=6),
    st.sampled_from([".", "..", "...", "..a", "", "x" * 255, "y" * 256]),
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
NUMBERS = st.one_of(
    st.integers(-1, 0o1010),
    st.sampled_from([2**53 - 1, 2**53, 10**15, 10**40, True, None, 1.5, "1"]),
)
HASHES = st.sampled_from([HASH, HASH.upper(), HASH[:-1], "g" * 64, "", None])


def outcome(raw: bytes):
    try:
        return manifest.parse(raw)
    except MalformedError as error:
        return type(error), error.code


def signed(files: list[dict], **how) -> bytes:
    document = {
        "schema": 1,
        "product": "acme",
        "version": "1.0.0",
        "seq": 1,
        "platform": "linux-x86_64",
        "min_updater": "0.1.0",
        "floor_seq": 0,
        "full": {
            "sha256": HASH, "length": 7, "codec": "full1",
            "unpacked": sum(
                item["length"] for item in files if type(item["length"]) is int
            ),
        },
        "deltas": [],
        "files": files,
    }  # fmt: skip
    ordered = dict(sorted(document.items()))  # of two faults the first is told
    return json.dumps(ordered, ensure_ascii=False, **how).encode()


@given(PATHS, NUMBERS, NUMBERS, HASHES, st.booleans())
@example("a/b", 7, 0o644, HASH, False)
@example("a/../b", 7, 0o644, HASH, False)
@example("a/b/", 7, 0o644, HASH, False)
@example("a" * 1025, 7, 0o644, HASH, False)
@example("a/" * 95 + "b", 7, 0o644, HASH, False)
@example("a/" * 96 + "b", 7, 0o644, HASH, False)
@example("a/b", 10**15 - 1, 0o777, HASH, False)
@example("", 2**53 - 1, 0, HASH, True)
def test_a_file_is_read_alike_however_it_is_written(path, length, mode, sha256, twice):
    """What publishers write is not parsed: nothing gets in that a parser refuses."""
    item = {"length": length, "mode": mode, "path": path, "sha256": sha256}
    items = [item, item] if twice else [item]
    usual = signed(items, separators=(",", ":"), sort_keys=True)
    other = signed([dict(reversed(item.items())) for item in items], indent=1)

    assert outcome(usual) == outcome(other)


def test_a_file_that_ends_too_early_or_goes_on_is_refused():
    raw = signed(
        [{"length": 1, "mode": 420, "path": "a", "sha256": HASH}],
        separators=(",", ":"),
        sort_keys=True,
    )
    assert isinstance(outcome(raw), Manifest)
    for old, new in (
        (b'"}]', b'"}}]'), (b'"}]', b'"},]'), (b'"}]', b'"]'), (b'"}]', b'"}7]'),
        (b'"length":1,"mode"', b'"length":01,"mode"'),
        (b'"mode":420', b'"mode":0420'),
        (b'"sha256":"' + HASH.encode() + b'"}]', b'"sha256":"' + HASH.encode() + b'"'),
    ):  # fmt: skip
        assert raw != (changed := raw.replace(old, new))
        assert outcome(changed)[1] == "malformed", new


@given(st.lists(st.tuples(st.text(max_size=9), st.integers(0, 2**53)), max_size=9))
def test_the_tree_id_is_the_hash_of_the_canonical_listing(items):
    files = [
        Link(path, path[::-1]) if number % 3 else File(path, HASH, number, 0o644)
        for path, number in items
        if path.isprintable()
    ]
    ordered = sorted(files, key=lambda entry: entry.path)
    encoded = json_fields.encode(listing.members(ordered))

    assert listing.canonical(files) == encoded
    expected = hashlib.sha256(encoded).hexdigest()
    assert listing.tree_id(files) == listing.Listing(ordered).tree == expected


def test_a_listing_that_is_changed_has_another_tree_id():
    files = (File("a", HASH, 1, 0o644), File("b", HASH, 2, 0o644))
    full = Full(sha256=HASH, length=7, unpacked=3, codec="full1")
    made = manifest_of("acme", "1.0.0", 1, files=files, full=full)
    read = manifest.parse(made.encode())
    assert read.tree == made.tree
    assert replace(read, files=read.files[:1]).tree == listing.tree_id(files[:1])
    assert replace(read, files=read.files[:1]).tree != read.tree
