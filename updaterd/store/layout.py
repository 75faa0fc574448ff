# SPDX-License-Identifier: Apache-2.0
"""Check that a database has the tables that its version promises.

What is looked for is what would make a statement of this release fail: a table or a
column that is missing, one that must be filled and is not known here, a trigger.
"""

import sqlite3
from contextlib import closing

_COLUMNS = """
SELECT t.name, c.name, c."notnull" AND c.dflt_value IS NULL AND NOT c.pk
FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c
WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite^_%' ESCAPE '^'
"""


def oddity(connection: sqlite3.Connection, fresh: sqlite3.Connection) -> str:
    """Return how a database differs from what is needed here, or nothing.

    Args:
        connection: the database.
        fresh: an empty one of the newest layout that is known here.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    with closing(fresh):
        expected = _columns(fresh)
    actual = _columns(connection)
    if missing := sorted(expected.keys() - actual.keys()):
        return f"it has no {'.'.join(missing[0])}, which its layout has"
    tables = {table for table, _ in expected}
    for (table, column), is_needed in sorted(actual.items()):
        if table in tables and (table, column) not in expected and is_needed:
            return f"{table}.{column} must be filled, and nobody here knows it"
    row = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
    ).fetchone()
    return f"it has a trigger {row[0]}, and none is known here" if row else ""


def _columns(connection: sqlite3.Connection) -> dict[tuple[str, str], bool]:
    rows = connection.execute(_COLUMNS)
    return {(table, column): bool(needed) for table, column, needed in rows}
