# SPDX-License-Identifier: Apache-2.0
"""What `state.db` says about the feed: its cursor, what waits, what was malformed."""

import sqlite3
from collections.abc import Collection

from updaterd.core.dataclass import dataclass
from updaterd.store import concern


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFacts:
    """The feed's side of `state.db`, for `status`.

    Attributes:
        cursor: last event id; None when no feed has given one.
        cursor_at: when it last moved, Unix seconds.
        pending: rows that wait.
        quarantined: malformed events kept for a look.
        quarantine_reason: of the newest.
        last_event_at: when the newest row came.
    """

    cursor: str | None = None
    cursor_at: float | None = None
    pending: int = 0
    quarantined: int = 0
    quarantine_reason: str = ""
    last_event_at: float | None = None


def read_feed(connection: sqlite3.Connection, products: Collection[str]) -> FeedFacts:
    """Return what `status` tells about the feed; a read-only connection will do.

    Args:
        connection: `state.db`.
        products: those that are configured: nobody waits for what others should do.
    """
    cursor = connection.execute(
        "SELECT last_event_id, updated_at FROM cursor ORDER BY updated_at DESC LIMIT 1"
    ).fetchone()
    quarantined, last = connection.execute(
        "SELECT count(*) FILTER (WHERE state = 'quarantined'), max(received_at) "
        "FROM inbox"
    ).fetchone()
    reason = connection.execute(
        "SELECT reason FROM inbox WHERE state = 'quarantined' ORDER BY row DESC LIMIT 1"
    ).fetchone()
    return FeedFacts(
        cursor=cursor[0] if cursor else None,
        cursor_at=cursor[1] if cursor else None,
        pending=concern.waiting(connection, products),
        quarantined=quarantined,
        quarantine_reason=reason[0] if reason else "",
        last_event_at=last,
    )
