# SPDX-License-Identifier: Apache-2.0
"""How much memory the bundle opener may take: one rule for all sides.

What it keeps beside its windows is the listings of the two trees, so what it may take
follows from how heavy they are. `core/tree` bounds that, and this with it: 248 MiB for
the heaviest trees there can be. A delta of a tree of 100,000 files in 100,000 takes
127 MiB, where a tenth of a percent of them changed, 143 MiB where all did; it may take
229 MiB.
"""

from __future__ import annotations

from updaterd.core.listing import weight_of
from updaterd.core.tree import MAX_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from updaterd.core.tree import Entry

GROUND = 96 * 2**20
"""Bytes whatever the trees; a delta that says it needs more is for another updaterd."""
EACH = 2
"""Bytes for each byte that a listing weighs."""


def applying(old: Iterable[Entry], new: Iterable[Entry] | None) -> int:
    """Return how many bytes of private memory applying a bundle may take.

    Args:
        old: listing of the tree it starts from; empty for a full bundle.
        new: listing of the tree it makes; None when it is not known: the heaviest.
    """
    heavy = MAX_MEMORY if new is None else weight_of(new)
    return GROUND + EACH * (weight_of(old) + heavy)
