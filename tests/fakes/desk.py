# SPDX-License-Identifier: Apache-2.0
"""A machine of which applications ask: 1.0.0 runs, 1.1.0 is ready."""

import asyncio
import threading
from contextlib import contextmanager

from updaterd.api import process
from updaterd.api.methods import World
from updaterd.core.lifecycle import State
from updaterd.store.journal import Note, Release

NOW = 1_800_000_000.0
DAY = 86400.0


def fill(journal):
    release = Release("1.0.0", 1, "t" * 64)
    first = journal.begin("acme", "stable", release, "manual", Note(NOW))
    for state in (State.PLANNED, State.STAGED, State.ACTIVATING, State.PROBATION):
        journal.move(first, state, Note(NOW))
    journal.install(first, release.tree, Note(NOW))
    ident = journal.begin(
        "acme", "stable", Release("1.1.0", 2, "u" * 64), "event", Note(NOW)
    )
    for state in (State.PLANNED, State.STAGED):
        journal.move(ident, state, Note(NOW))
    journal.remember(
        "acme",
        decision="waits_for_request",
        decision_reason="1.1.0 is ready: ...",
        pending_since=NOW,
        checked_at=NOW,
    )


async def nobody(caller, product):
    return False


@contextmanager
def listener(settings, tmp_path, idle_s=60.0, polkit=nobody):
    path = tmp_path / "socket"
    ear = process.listening(path)
    world = World(load=lambda: settings, now=lambda: NOW, polkit=polkit)
    ended = threading.Event()

    def serve():
        asyncio.run(process.Listener(world, idle_s=idle_s).run(ear))
        ended.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path, ended
    assert ended.wait(30), "it did not end by itself"
    thread.join()
