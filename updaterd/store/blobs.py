# SPDX-License-Identifier: Apache-2.0
"""Large values of the database, written and read in pieces.

A statement takes a value in three copies at once (ours, SQLite's, the record's), and
gives one back in two. A manifest may have 24 MiB.
"""

import sqlite3

_PIECE = 1 << 18


def write(connection: sqlite3.Connection, row: int, manifest: bytes) -> None:
    """Put a manifest into its row of `release`, which has room of its length.

    Raises:
        sqlite3.OperationalError: the disk refused.

    Power cut: part of the transaction that it belongs to: all of it, or none.
    """
    if not manifest:
        return
    with connection.blobopen("release", "manifest", row) as blob:
        view = memoryview(manifest)
        for start in range(0, len(view), _PIECE):
            blob.write(view[start : start + _PIECE])


def read(connection: sqlite3.Connection, row: int) -> bytes:
    """Return the manifest of a row of `release`.

    Raises:
        sqlite3.OperationalError: it cannot be read, or changed meanwhile.
    """
    with connection.blobopen("release", "manifest", row, readonly=True) as blob:
        return blob.read()


def part(connection: sqlite3.Connection, row: int, at: int, count: int) -> bytes:
    """Return up to `count` bytes from `at` on of the manifest of a row of `release`.

    Raises:
        sqlite3.OperationalError: it cannot be read, or is gone meanwhile.
    """
    with connection.blobopen("release", "manifest", row, readonly=True) as blob:
        blob.seek(min(at, len(blob)))
        return blob.read(count)
