# SPDX-License-Identifier: Apache-2.0
"""Large values of the database, read in pieces.

A statement gives a value back in two copies at once. A manifest may have 24 MiB; that
older updaterd kept it here.
"""

import sqlite3


def part(connection: sqlite3.Connection, row: int, at: int, count: int) -> bytes:
    """Return up to `count` bytes from `at` on of the manifest of a row of `release`.

    Raises:
        sqlite3.OperationalError: it cannot be read, or is gone meanwhile.
    """
    with connection.blobopen("release", "manifest", row, readonly=True) as blob:
        blob.seek(min(at, len(blob)))
        return blob.read(count)
