# SPDX-License-Identifier: Apache-2.0
"""Rights that a release asks for, and gets only by the word of the machine's owner.

Bits of a mode that make a file or folder more than its owner's: setuid, setgid, sticky,
and the right to write for group and others. No listing has them (`tree.MODE_MASK`);
they stand in a member of their own that has to be understood.
"""

from collections.abc import Collection

from updaterd.core.frozen import record
from updaterd.core.json_fields import Fields
from updaterd.core.tree import MAX_PATH, MODE_MASK, check_path
from updaterd.errors import MalformedError

KINDS = {"setuid": 0o4000, "setgid": 0o2000, "sticky": 0o1000, "writable": 0o022}
"""The bits by the names that owners and publishers use."""


@record
class Special:
    """A file or folder with such a right: its path, and its whole mode."""

    path: str
    mode: int


def special(item: Fields) -> Special:
    """Return one of a manifest.

    Raises:
        MalformedError: its path or mode makes no sense.
    """
    path = check_path(item.text("path", longest=MAX_PATH))
    mode = item.integer("mode", high=0o7777)
    if not mode & ~MODE_MASK:
        raise MalformedError(f"{path!r:.80} has mode {mode:o}, which is not special")
    return Special(path, mode)


def rights_of(mode: int) -> tuple[str, ...]:
    """Return the kinds of rights that a mode asks for."""
    return tuple(kind for kind, bits in KINDS.items() if mode & bits)


def bits(kinds: Collection[str]) -> int:
    """Return the bits of kinds of rights."""
    return sum(KINDS[kind] for kind in kinds)
