# SPDX-License-Identifier: Apache-2.0
"""The outside of a bundle: magic, version, kind, and a table of packed streams.

    "UPDR"  version u8 = 1  kind u8 ("F" full, "D" delta)
    count   varint
    count x (codec u8, raw length varint, packed length varint)
    the packed streams, one after another, to the end of the file

docs/formats.md has the rest.
"""

from __future__ import annotations

import os

from updaterd.artifact import varint
from updaterd.artifact.codecs import Packed
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"UPDR"
VERSION = 1
FULL, DELTA = b"F", b"D"
MAX_STREAMS = 1 << 16

_ROW = 1 + 8 + 8  # most bytes a table row can take


def header(kind: bytes, table: Sequence[tuple[int, int, int]]) -> bytes:
    """Return everything before the streams.

    Args:
        kind: FULL or DELTA.
        table: codec number, raw bytes and packed bytes of each stream.
    """
    rows = b"".join(
        bytes([codec]) + varint.pack(raw, length) for codec, raw, length in table
    )
    return MAGIC + bytes([VERSION]) + kind + varint.pack(len(table)) + rows


def parse(head: bytes, kind: bytes, *, length: int) -> tuple[Packed, ...]:
    """Return where each stream of a bundle lies.

    Args:
        head: the bundle's first bytes; enough of them for the table.
        kind: what it has to be.
        length: bytes of the whole bundle.

    Raises:
        MalformedError: not such a bundle, another version, or lengths that do not
            add up to the bundle's.
    """
    if head[:4] != MAGIC or head[5:6] != kind:
        raise MalformedError("the bundle does not start as one", code="bad_bundle")
    if head[4] != VERSION:
        raise MalformedError(
            f"the bundle has format {head[4]}, this updaterd reads {VERSION}",
            do="update updaterd itself",
            code="newer_bundle",
        )
    cursor = varint.Cursor(head[6:], "bundle header")
    count = cursor.number(MAX_STREAMS)
    rows = [(cursor.raw(1)[0], cursor.number(), cursor.number()) for _ in range(count)]
    offset = 6 + cursor.position
    out = []
    for codec, raw, packed in rows:
        out.append(Packed(codec, packed, raw, offset))
        offset += packed
    if offset != length:
        raise MalformedError(
            f"the bundle's streams end at {offset}, it has {length} bytes",
            code="bad_bundle",
        )
    return tuple(out)


def read(fd: int, kind: bytes, *, length: int) -> tuple[Packed, ...]:
    """Return the table of an open bundle.

    Raises:
        MalformedError: see `parse`.
    """
    head = os.pread(fd, min(length, 4096), 0)
    if len(head) == 4096:
        count = varint.Cursor(head[6:], "bundle header").number(MAX_STREAMS)
        head = os.pread(fd, min(length, 16 + count * _ROW), 0)
    return parse(head, kind, length=length)
