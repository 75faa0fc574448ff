# SPDX-License-Identifier: Apache-2.0
"""The numbers of the delta format: one value in Python, in C and in docs/formats.md.

A machine with another one than its publisher's would refuse good deltas, or make other
bytes of them; no other test would notice, for both sides of those are of one tree.
"""

import os
from importlib import import_module
from pathlib import Path

import pytest

from updaterd.artifact import codecs, container, script, varint
from updaterd.artifact.apply import blocks, compiled, sparse
from updaterd.artifact.programs import arm, image, projection, projector, stream
from updaterd.artifact.worker import answers
from updaterd.core import tree
from updaterd.release.bundles import full, matching
from updaterd.release.bundles.packing import runs

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"
KINDS = ("CODE", "WORDS", "FRAMES", "TABLE", "FUNCTIONS", "ARM")
REFERENCES = ("RELATIVE", "ABSOLUTE", "OFFSET", "BACK")

# name: value, what the page says of it, where Python has it besides
FORMAT = {
    "WIDEST": (6, "largest length, extra and |skip|; at most 6", [blocks._WIDEST]),
    "LONGEST_GAP": (
        2**24 - 1,
        "longest gap (2^24 - 1)",
        [sparse._LONGEST_GAP, runs._LONGEST_GAP],
    ),
    "PIECE": (
        2**18,
        "one longer than 256 KiB is taken as several of 256 KiB",
        [projector.PIECE, matching.PART],
    ),
    "CHUNK": (2**14, "in chunks of 16 KiB of the file", [image.CHUNK]),
    "MAX_SEGMENTS": (
        32,
        "segments  count (1 to 32)",
        [image.MAX_SEGMENTS, stream._MAX_SEGMENTS],
    ),
    "MAX_REGIONS": (
        256,
        "regions   count (to 256)",
        [image.MAX_REGIONS, stream._MAX_REGIONS],
    ),
    "MAX_TABLES": (
        65536,
        "tables    count (to 65536)",
        [image.MAX_TABLES, stream._MAX_TABLES],
    ),
    "MAX_LISTED": (2**20, "more than 2^20 references listed", [image.MAX_LISTED]),
    "MAX_PARTS": (2**20, "At most 2^20 parts for all S", [projector._MAX_PARTS]),
    "STEP": (6, "| step |", [image.STEP]),
    "WINDOW": (7, "p + 4 to p + 28", [arm.WINDOW]),
    "PARAMETERS": (5, "", [image._PARAMETERS, stream._ROOM]),
    **{
        name: (number, f"| {number} | {name.lower()}", [getattr(image, name)])
        for number, name in enumerate(KINDS)
    },
    **{
        name: (number, f"| {name.lower()} |", [getattr(image, name)])
        for number, name in enumerate(REFERENCES, 1)
    },
}
# what is said, and Python's numbers for it; the loops in C are handed these, or no part
PYTHON = {
    "count    varint, at most 65536": (65536, [container.MAX_STREAMS]),
    "window at most 8 MiB": (2**23, [codecs.WINDOW, 1 << codecs.WINDOW_LOG]),
    "cut every 16 MiB": (2**24, [full.FRAME]),
    "shortest form, at most 2^53 - 1": (2**53 - 1, [varint.MAX]),
    "Blocks of up to 4096 operations": (4096, [blocks.MAX_BLOCK]),
    "Blocks of up to 16384 runs": (16384, [sparse.BLOCK, compiled.RUNS]),
    "those of 1 MiB or more first": (2**20, [script.LONG]),
    "at most 2^18 operations": (2**18, [projection.MAX_OPERATIONS]),
    "in at most 4096 blocks": (4096, [projection.MAX_BLOCKS]),
    "Its stream, at most 4 MiB": (2**22, [stream.MAX_BYTES]),
    "of images, at most 4096": (4096, [stream.MAX_IMAGES]),
    "more than 2^16 regions or 2^18 tables in all images": (
        2**16 + 2**18,
        [stream.MAX_ALL_REGIONS + stream.MAX_ALL_TABLES],
    ),
    "| files and links | 131,072": (131_072, [tree.MAX_FILES]),
}


@pytest.fixture
def native():
    """Return the compiled module: in CI it must be there."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("updaterd.artifact._native", exc_type=ImportError)
    return import_module("updaterd.artifact._native")


@pytest.mark.parametrize("name", FORMAT)
def test_a_number_is_the_same_in_c_in_python_and_on_the_page(native, name):
    value, sentence, python = FORMAT[name]

    assert value == getattr(native, name)
    assert [value] * len(python) == python
    assert sentence in _page()


def test_no_number_that_c_exports_is_unknown_here(native):
    exported = {name for name in vars(native) if name.isupper()}
    assert set(FORMAT) == exported


@pytest.mark.parametrize("sentence", PYTHON)
def test_a_number_is_the_same_in_python_and_on_the_page(sentence):
    value, python = PYTHON[sentence]

    assert [value] * len(python) == python
    assert sentence in _page()


def test_the_kinds_of_items_and_the_longest_script_are_those_of_the_page():
    kinds = ("made", "copy", "same", "link")
    for number, name in enumerate(kinds):
        assert number == getattr(script, name.upper())
        assert f"| {number} {name} |" in _page()
    assert script.MAX_BYTES == answers.MAX_SCRIPT == 2**24


def _page():
    return PAGE.read_text()
