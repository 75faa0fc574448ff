# SPDX-License-Identifier: Apache-2.0
"""Whoever is connected is counted, also who takes no answer."""

import asyncio
import json
import os
import select
import socket
import threading

from fakes.desk import NOW, nobody
from fakes.varlink import Client

from updaterd.api import process
from updaterd.api.methods import World

ASK = {
    "method": "org.varlink.service.GetInterfaceDescription",
    "parameters": {"interface": "io.updaterd.Updater"},
}

CALLS = range(40, 140, 20)  # from what the kernel takes to what it does not


async def settled():
    """Let everything happen that can: a local socket is as fast as the loop."""
    for _ in range(1000):
        await asyncio.sleep(0)


async def test_who_asks_and_never_reads_stays_counted(settings, ready, tmp_path):
    """What was answered and not taken must not keep a connection open, uncounted.

    A user would have as many of these as this process has descriptors: the limits are
    what lets others in.
    """
    ear = process.listening(tmp_path / "socket")
    world = World(load=lambda: settings, now=lambda: NOW, polkit=nobody)
    listener = process.Listener(world)
    serving = asyncio.create_task(listener.run(ear))
    clients = []
    for calls in CALLS:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(tmp_path / "socket"))
        client.sendall((json.dumps(ASK).encode() + b"\0") * calls)
        client.shutdown(socket.SHUT_WR)
        clients.append(client)
        await settled()

    looks = select.poll()
    for client in clients:
        looks.register(client, select.POLLHUP)
    gone = len(looks.poll(0))
    assert 0 < gone < len(clients)
    assert listener.connections == len(clients) - gone

    loop = asyncio.get_running_loop()
    for calls, client in zip(CALLS, clients, strict=True):
        client.setblocking(False)
        taken = 0
        while data := await loop.sock_recv(client, 1 << 16):
            taken += data.count(b"\0")
        assert taken == calls  # late, but all of it
        client.close()
    await settled()
    assert listener.connections == 0
    serving.cancel()
    await asyncio.wait({serving})


def test_who_comes_when_it_would_end_is_answered(settings, ready, tmp_path):
    """systemd listens on, and starts the next; nobody is hung up on in between."""
    ear = process.listening(tmp_path / "socket")
    world = World(load=lambda: settings, now=lambda: NOW, polkit=nobody)
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            with socket.socket(fileno=os.dup(ear.fileno())) as own:
                own.setblocking(False)
                asyncio.run(process.Listener(world, idle_s=0.0).run(own))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        for _ in range(150):
            with Client(tmp_path / "socket") as client:
                assert {"products": ["acme"]} == client.call("List")
    finally:
        stop.set()
        thread.join()
        ear.close()
