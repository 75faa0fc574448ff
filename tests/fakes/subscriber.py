# SPDX-License-Identifier: Apache-2.0
"""A daemon reduced to its ear: subscription and inbox, in a process to be killed.

python subscriber.py URL STATE_DB
"""

import asyncio
import sys
from pathlib import Path

from updaterd.core.backoff import Backoff
from updaterd.feed.client import EventSource
from updaterd.store.inbox import Inbox
from updaterd.store.schema import open_state

IDLE_S = 0.3
CAP = 10**6


async def listen(url, database, *, feed="feed", done=None):
    """Take events in until `done(cursor)` says so, or for ever."""
    connection = open_state(database)
    inbox = Inbox(connection, feed=feed, products={"acme": "stable"}, cap=CAP)
    source = EventSource(
        url,
        last_event_id=inbox.cursor(),
        backoff=Backoff(base=1e-5, cap=0.05),
        idle_timeout_s=IDLE_S,
        header_deadline_s=2.0,
        on_cursor=lambda cursor: inbox.advance(cursor, now=0.0),
    )
    try:
        async with source:
            while done is None or not done(inbox.cursor()):
                event = await anext(source)
                inbox.accept_all([event, *source.take_ready()], now=0.0)
    finally:
        connection.close()


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], Path(sys.argv[2])))
