# SPDX-License-Identifier: Apache-2.0
"""Which rows of the inbox go when a feed sends more than is kept.

The newest pending row of each product stays whatever comes; of the others the settled
go first, then the oldest. Of malformed events, and of the text of old ones, less is
enough for people to see.
"""

import sqlite3

_NEWEST = 50  # rows that are kept as they are
_EVICT = """
    SELECT row, product, urgency, state FROM inbox WHERE row NOT IN (
        SELECT max(row) FROM inbox WHERE state = 'pending' GROUP BY product
    ) ORDER BY state = 'pending', row LIMIT ?
"""
_EVICT_QUARANTINED = """
    DELETE FROM inbox WHERE state = 'quarantined' AND row <= (
        SELECT row FROM inbox WHERE state = 'quarantined'
        ORDER BY row DESC LIMIT 1 OFFSET ?
    )
"""
_SHORTEN = """
    UPDATE inbox SET data = substr(data, 1, 256)
    WHERE row BETWEEN (SELECT max(row) FROM inbox) - ? AND
        (SELECT max(row) FROM inbox) - ? AND length(data) > 256
"""


def evict(connection: sqlite3.Connection, *, came: int, rows: int, cap: int) -> int:
    """Bring the rows back under the cap, inside a transaction; return how many stay.

    A tenth more goes than must, so that a flood does not pay for each event.

    Args:
        connection: `state.db`.
        came: rows that came in this transaction.
        rows: an upper bound of the rows that there are.
        cap: most rows that are kept.

    Raises:
        sqlite3.Error: the disk refused; the caller's transaction is undone.

    Power cut: as the transaction.
    """
    rows -= connection.execute(_EVICT_QUARANTINED, (_NEWEST,)).rowcount
    connection.execute(_SHORTEN, (came + _NEWEST, _NEWEST))
    if rows <= cap:
        return rows
    (rows,) = connection.execute("SELECT count(*) FROM inbox").fetchone()
    if rows <= cap:
        return rows
    leaving = connection.execute(_EVICT, (rows - cap + cap // 10,)).fetchall()
    urgent = {
        product
        for _, product, urgency, state in leaving
        if state == "pending" and urgency == "critical"
    }
    for product in urgent:  # what was urgent stays so
        connection.execute(
            "UPDATE inbox SET urgency = 'critical' WHERE row = ("
            "SELECT max(row) FROM inbox WHERE state = 'pending' AND product IS ?)",
            (product,),
        )
    connection.executemany(
        "DELETE FROM inbox WHERE row = ?", [(row,) for row, *_ in leaving]
    )
    return rows - len(leaving)
