# SPDX-License-Identifier: Apache-2.0
"""Plain `BSDIFF40` patches, as the `bsdiff` program makes them.

Such a patch turns one file into another. For a tree, each of the two is all its
regular files one after another, in the order of the listing (sorted by path bytes);
for a product of one file: that file. Names, modes and links come from the signed
listing, so such a patch can only be the last step of a path.

    "BSDIFF40"  packed control i64  packed diff i64  new size i64
    bz2 control   bz2 diff   bz2 extra
"""

from __future__ import annotations

import os
import struct

from updaterd.artifact.codecs import BZ2, Packed, Stream
from updaterd.artifact.script import LINK, MADE, Item, Script
from updaterd.core.tree import File, Link
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from updaterd.artifact.job import Job

MAGIC = b"BSDIFF40"
MAX_CONTROL = 24 * 2**24
_HEAD = struct.Struct("<8sqqq")


def plan(fd: int, job: Job) -> Script:
    """Return the tree script that such a patch implies.

    Raises:
        MalformedError: not such a patch, not a last step, or another new size.
    """
    magic, _, _, size = _header(fd)
    if magic != MAGIC or job.files is None:
        raise MalformedError("not a BSDIFF40 patch of a signed tree", code="bad_bundle")
    items = tuple(
        Item(entry.path, LINK, target=entry.target)
        if isinstance(entry, Link)
        else Item(entry.path, MADE, entry.mode, entry.length)
        for entry in job.files
    )
    if size != sum(item.number for item in items):
        raise MalformedError("the patch makes another size", code="bad_bundle")
    sources = tuple(entry for entry in job.old_files if isinstance(entry, File))
    return Script((), items, sources)


def _header(fd: int) -> tuple[bytes, int, int, int]:
    head = os.pread(fd, _HEAD.size, 0)
    if len(head) < _HEAD.size:
        raise MalformedError("the patch is cut short", code="bad_bundle")
    magic, control, diff, size = _HEAD.unpack(head)
    return magic, control, diff, size


def streams(fd: int, length: int, script: Script) -> tuple[Packed, Packed, Packed]:
    """Return where control, diff and extra lie, with their raw lengths.

    The format does not declare raw lengths; those of diff and extra follow from
    the operations, so the control is read once to add it up.

    Raises:
        MalformedError: the lengths do not add up, or the control is too long.
    """
    _, control, diff, size = _header(fd)
    extra = length - _HEAD.size - control - diff
    if min(control, diff, extra) < 0 or size != sum(i.number for i in script.items):
        raise MalformedError("the patch's lengths do not add up", code="bad_bundle")
    at = _HEAD.size
    raw, added = _measure(fd, Packed(BZ2, control, MAX_CONTROL, at))
    if added > size:
        raise MalformedError("the patch makes more than it says", code="bad_bundle")
    return (
        Packed(BZ2, control, raw, at),
        Packed(BZ2, diff, added, at + control),
        Packed(BZ2, extra, size - added, at + control + diff),
    )


def _measure(fd: int, packed: Packed) -> tuple[int, int]:
    """Return the control's raw bytes, and the diff bytes its operations take.

    Raises:
        MalformedError: the control is broken, or an operation negative.
    """
    stream = Stream(fd, packed, "operations")
    raw = added = 0
    while triple := stream.read_some(24 * 4096):
        if len(triple) % 24:
            raise MalformedError("operations: one is cut short")
        raw += len(triple)
        lengths = [length for length, _, _ in struct.iter_unpack("<qqq", triple)]
        if min(lengths) < 0:
            raise MalformedError("operations: a length is negative")
        added += sum(lengths)
    return raw, added
