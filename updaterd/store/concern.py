# SPDX-License-Identifier: Apache-2.0
"""Which products and failed releases an event concerns."""

import sqlite3
from collections.abc import Collection
from contextlib import suppress

from updaterd.store.schema import transaction

_THEIRS = "state = 'pending' AND product IS NOT NULL AND product NOT IN ({holes})"
_EVERYBODYS = "state = 'pending' AND product IS NULL AND row <= ?"


def settle_others(connection: sqlite3.Connection, products: Collection[str]) -> None:
    """Settle what waits for products that are not configured any more.

    A disk that refuses is no reason not to start: `waiting` does not count them.

    Power cut: as before, or settled.
    """
    condition = _THEIRS.format(holes=_holes(products))
    with suppress(sqlite3.OperationalError), transaction(connection) as db:
        db.execute(
            f"UPDATE inbox SET state = 'done' WHERE {condition}",  # noqa: S608 - only ?
            tuple(products),
        )
        db.execute(
            f"UPDATE inbox SET state = 'done' WHERE {_EVERYBODYS}",  # noqa: S608 - ours
            (_everybody_up_to(connection, products),),
        )


def waiting(connection: sqlite3.Connection, products: Collection[str]) -> int:
    """Return how many events wait for products that are configured."""
    (count,) = connection.execute(
        "SELECT count(*) FROM inbox WHERE state = 'pending' AND ("  # noqa: S608 - only ?
        f"product IN ({_holes(products)}) OR (product IS NULL AND row > ?))",
        (*products, _everybody_up_to(connection, products)),
    ).fetchone()
    return int(count)


def announce(
    connection: sqlite3.Connection, product: str, version: str, now: float
) -> None:
    """Note that the feed names a release, for the case that it failed here before.

    Inside the transaction that keeps the event.
    """
    connection.execute(
        "UPDATE blocked SET announced_at = ? WHERE product = ? AND version = ?",
        (now, product, version),
    )


def _everybody_up_to(connection: sqlite3.Connection, products: Collection[str]) -> int:
    """Return up to which row all products have been looked at."""
    if not products:
        (newest,) = connection.execute("SELECT max(row) FROM inbox").fetchone()
        return int(newest or 0)
    marks = dict(map(tuple, connection.execute("SELECT product, row FROM inbox_mark")))
    return min(int(marks.get(product, 0)) for product in products)


def _holes(values: Collection[str]) -> str:
    return ",".join("?" * len(values))
