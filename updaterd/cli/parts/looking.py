# SPDX-License-Identifier: Apache-2.0
"""How things stand: from the database, or as the daemon last published it."""

import os
from pathlib import Path
from typing import Any

LONGEST = 16 * 2**20
"""Most bytes of `status.json`."""


def look(settings: Any, now: float) -> dict[str, Any]:
    """Return the document: from the database, or as the daemon last published it.

    Raises:
        StateError: the database is unusable, and nothing was published.
        sqlite3.Error: the same.
        OSError: the database may not be read, and nothing was published.
    """
    import sqlite3
    from contextlib import closing

    from updaterd import status
    from updaterd.store.schema import StateError, open_for_reading
    from updaterd.system import presence

    runtime = Path(settings.directories.runtime)
    published = published_in(runtime)
    running = presence.is_running(runtime, published)
    daemon = None
    if running and published:
        daemon = {
            "pid": published["daemon"].get("pid"),
            "since": published["daemon"].get("since"),
            "ticks": published["daemon"].get("ticks"),
            "feed": published["feed"].get("connection"),
            "refused": (published.get("configuration") or {}).get("refused"),
            "cage": published.get("cage"),
        }
    elif running:
        daemon = dict.fromkeys(("pid", "since", "ticks", "feed", "refused", "cage"))
    try:
        connection = open_for_reading(Path(settings.directories.state) / "state.db")
        if connection is None:
            return status.collect(None, settings, daemon=daemon, now=now)
        with closing(connection):
            return status.collect(connection, settings, daemon=daemon, now=now)
    except (StateError, OSError, sqlite3.Error) as error:
        if published is None:
            raise
        document = published if running else status.left_behind(published)
        if not os.access(settings.directories.state, os.R_OK | os.X_OK):
            return document  # as it is for everybody but the daemon's user
        why = error.cause if isinstance(error, StateError) else str(error)
        return status.unreadable(document, f"this is old: {why}")


def published_in(runtime: Path) -> dict[str, Any] | None:
    """Return what a daemon published, if it is of a layout that is known here."""
    import json

    from updaterd.files import regular
    from updaterd.status import SCHEMA

    try:
        document = json.loads(regular.read(runtime / "status.json", LONGEST))
    except (OSError, ValueError):
        return None
    whole = isinstance(document, dict) and all(
        isinstance(document.get(part), dict) for part in ("daemon", "feed", "trust")
    )
    return document if whole and document.get("schema") == SCHEMA else None
