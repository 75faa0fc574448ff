# SPDX-License-Identifier: Apache-2.0
"""The usual way: sse-starlette on uvicorn with uvloop, a queue for each stream."""

import asyncio
import json
import socket

import uvicorn
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

queues = set()


async def events(_request):
    queue = asyncio.Queue()
    queues.add(queue)

    async def generate():
        try:
            yield {"event": "hello", "data": "{}"}
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return EventSourceResponse(generate(), ping=15, sep="\n")


async def publish(request):
    body = await request.json()
    data = json.dumps(body, separators=(",", ":"))
    item = {"id": str(body["seq"]), "event": "update_available", "data": data}
    for queue in list(queues):
        queue.put_nowait(item)
    return Response(status_code=201)


def main():
    app = Starlette(
        routes=[
            Route("/v1/events", events),
            Route("/v1/events", publish, methods=["POST"]),
        ]
    )
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(app, access_log=False, log_level="error", loop="uvloop")
    uvicorn.Server(config).run(sockets=[sock])


main()
