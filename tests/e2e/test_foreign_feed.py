# SPDX-License-Identifier: Apache-2.0
"""The simplest feed in the wild is enough: `{"version": 5, "patch_url": "..."}`."""

import asyncio
import json
import socket
import threading

import pytest
import uvicorn
from fakes.machine import Machine
from fakes.site import Site
from fakes.trees import make_tree
from fakes.waiting import eventually
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route


class ForeignFeed:
    """Somebody else's server: keeps its history in a list, counts its ids from 1."""

    def __init__(self):
        self.history: list[dict] = []
        self.asked_from: list[str | None] = []
        self._changed: list[asyncio.Event] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        app = Starlette(routes=[Route("/stream", self._stream)])
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/stream"
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        asyncio.run(self._server.serve(sockets=[self._socket]))

    async def _stream(self, request):
        self._loop = asyncio.get_running_loop()
        last = request.headers.get("last-event-id")
        self.asked_from.append(last)

        async def body():
            changed = asyncio.Event()
            self._changed.append(changed)
            at = int(last or 0)
            yield ": hello\n\n"
            while True:
                for item in self.history[at:]:
                    at += 1
                    data = json.dumps(item)
                    yield f"event: update_available\nid: {at}\ndata: {data}\n\n"
                changed.clear()
                await changed.wait()

        return StreamingResponse(body(), media_type="text/event-stream")

    def publish(self, item):
        self.history.append(item)
        if self._loop is not None:
            for changed in self._changed:
                self._loop.call_soon_threadsafe(changed.set)

    def stop(self):
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(20)


@pytest.fixture
def foreign():
    feed = ForeignFeed()
    yield feed
    feed.stop()


def test_event_without_product_makes_every_product_look(tmp_path, foreign):
    """Nothing in it is followed: the release comes from signed metadata alone."""
    site = Site(tmp_path / "site")
    site.start()
    machine = Machine(
        tmp_path / "machine",
        feed=foreign.url,
        repository=f"{site.address}/repo",
        bootstrap=site.bootstrap,
    )
    try:
        site.push(make_tree(tmp_path / "1", {"bin/app": "one"}), "1", announce=False)
        machine.start()
        machine.wait_for("1")
        eventually(lambda: foreign.asked_from)

        site.push(make_tree(tmp_path / "2", {"bin/app": "two"}), "2", announce=False)
        foreign.publish({"version": 5, "patch_url": "http://127.0.0.1:9/evil"})
        machine.wait_for("2")
        assert b"two" == (machine.current / "bin" / "app").read_bytes()

        eventually(lambda: machine.status()["feed"]["cursor"] == "1")
        machine.stop()
        machine.start()
        eventually(lambda: foreign.asked_from[-1] == "1", event="Last-Event-ID: 1")
    finally:
        machine.stop()
        site.hard_stop()
