# SPDX-License-Identifier: Apache-2.0
"""A real NATS server, Debian's, with JetStream in a folder of its own."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from fakes.serving import free_port, wait_until
from fakes.tools import need


class NatsProcess:
    """A server on a loopback port.

    `more` is further configuration, `login` what stands before the @ of its address.
    """

    def __init__(self, folder: Path, more: str = "", login: str = ""):
        self.program = need("nats-server")
        self.folder = folder
        self.port = free_port()
        self.more = more
        self.login = login
        self.process = None

    @property
    def url(self):
        return f"nats://{self.login}127.0.0.1:{self.port}"

    def start(self):
        self.folder.mkdir(exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(
            f"listen: 127.0.0.1:{self.port}\n"
            f'jetstream {{ store_dir: "{self.folder}" }}\n'
            f"{self.more.replace('FOLDER', str(self.folder))}\n"
        )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while not self.answers():
            lives = self.process.poll() is None and time.monotonic() < end
            assert lives, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.02)
        return self

    def answers(self):
        """It greets when JetStream has recovered its streams."""
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 1) as sock,
        ):
            return sock.recv(64).startswith(b"INFO")
        return False

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextmanager
    def stopped(self):
        """It takes connections, as its kernel does, and answers nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            wait_until(self._is_still, "each of its threads is stopped")
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def _is_still(self):
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        return all(t.read_text().rpartition(") ")[2][0] == "T" for t in tasks)

    def ask(self, work):
        """Return what `work` makes of a connection's JetStream, as somebody else."""
        import nats

        async def asked():
            client = await nats.connect(self.url)
            try:
                return await work(client.jetstream())
            finally:
                await client.close()

        # not in the loop of the test, which may be running
        return asyncio.run(asked())

    def flush(self):
        """Delete all streams, as an emptied server has none."""

        async def work(js):
            for info in await js.streams_info():
                await js.delete_stream(info.config.name)

        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as thread:
            thread.submit(self.ask, work).result(30)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
