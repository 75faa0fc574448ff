# SPDX-License-Identifier: Apache-2.0
"""What the bundle opener may take follows from what it has to hold."""

from updaterd.core.budget import EACH, GROUND, applying
from updaterd.core.tree import MAX_MEMORY, File, weight

ENTRY = File("usr/lib/app/file", "0" * 64, 1, 0o644)


def test_each_listed_entry_adds_to_what_may_be_taken():
    assert applying((), ()) == GROUND
    assert applying((ENTRY,) * 10, (ENTRY,)) == GROUND + 11 * EACH * weight(ENTRY)


def test_the_heaviest_trees_stay_within_the_units_bound():
    """systemd/updaterd.service: MemoryMax=512M, the worker's parent included."""
    heaviest = (ENTRY,) * (MAX_MEMORY // weight(ENTRY))

    assert applying(heaviest, None) <= 256 * 2**20
    assert applying(heaviest, heaviest) <= applying(heaviest, None)
