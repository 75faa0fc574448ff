# SPDX-License-Identifier: Apache-2.0
"""What an idle daemon costs: memory, and how often it wakes the machine.

    python benchmarks/idle.py                    # the daemon, an hour of heartbeats
    python benchmarks/idle.py --only subscription

A feed on loopback sends one `hello` and then an hour's worth of heartbeats (240), a
tenth of a second apart; then it stays silent for a while. Wakeups are the kernel's
own count (voluntary context switches of all threads): one for each heartbeat, none
in the silence. Memory is read at the end: RSS; PSS, which divides shared pages among
those who use them; and what nothing shares.
`import httpx` alone, in the same interpreter, is what it is compared with, and what
the libraries that the daemon is made of take before it has a line of its own: asyncio,
httpx, structlog, a TLS context and an open database. The CPU
time of the start is the daemon's own, until it has subscribed.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from pathlib import Path

HEARTBEATS = 240
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 1000\n\n"
HELLO = b'id: 1\nevent: hello\ndata: {"heartbeat_s": 15}\n\n'

SUBSCRIPTION = """
import asyncio, sys
from pathlib import Path
from updaterd.feed.client import EventSource
from updaterd.store.inbox import Inbox
from updaterd.store.schema import open_state

async def main():
    connection = open_state(Path(sys.argv[2]) / "state.db")
    inbox = Inbox(connection, feed="f", products={"acme": "stable"})
    async with EventSource(sys.argv[1], idle_timeout_s=900) as source:
        async for event in source:
            inbox.accept(event, now=0.0)

asyncio.run(main())
"""

LIBRARIES = """
import sys, time
sys.modules["httpx._main"] = None  # its command line; the daemon does without too
import asyncio, httpx, sqlite3, ssl, structlog
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(capath="/etc/ssl/certs")
connection = sqlite3.connect(sys.argv[1] + "/empty.db")
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE kept (row)")
asyncio.run(asyncio.sleep(0))
time.sleep(1e6)
"""

CONFIG = """
[feed]
url = "{url}"
idle_timeout_s = 900
[trust]
root = "{directory}/root.json"
repository = "{url}"
[products.acme]
root = "{directory}/acme"
"""


class Feed:
    """Sends heartbeats when it is told to."""

    def __init__(self):
        self.subscribed = asyncio.Event()
        self.writer = None

    async def serve(self, reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/events" not in request:
            writer.close()  # metadata: there is none
            return
        writer.write(HEAD + HELLO)
        await writer.drain()
        self.writer = writer
        self.subscribed.set()


def wakeups(pid):
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Return the process's memory by name, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = dict(line.split(":", 1) for line in lines)
    names = ("Rss", "Pss", "Anonymous")
    return {name: int(sizes[name].split()[0]) / 1024 for name in names}


def mib(sizes):
    return "RSS {Rss:.1f} MiB, PSS {Pss:.1f}, its own {Anonymous:.1f}".format_map(sizes)


def command(subject, url, directory):
    if subject == "import httpx":
        code = "import sys; sys.modules['httpx._main'] = None; import httpx, time; "
        code += "time.sleep(1e6)"
        return [sys.executable, "-c", code]
    if subject == "libraries":
        return [sys.executable, "-c", LIBRARIES, str(directory)]
    if subject == "subscription":
        return [sys.executable, "-c", SUBSCRIPTION, url, str(directory)]
    (directory / "updaterd.toml").write_text(
        CONFIG.format(url=url, directory=directory)
    )
    (directory / "root.json").write_text("{}")
    places = [
        f"--{name}-dir={directory / name}" for name in ("state", "cache", "runtime")
    ]
    config = f"--config={directory / 'updaterd.toml'}"
    return [sys.executable, "-m", "updaterd", "run", "--demo", config, *places]


async def measure(subject, options):
    feed = Feed()
    server = await asyncio.start_server(feed.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        log = open(  # noqa: ASYNC230, SIM115  a local file, closed below
            Path(directory) / "log", "wb"
        )
        process = await asyncio.create_subprocess_exec(
            *command(subject, f"http://127.0.0.1:{port}/v1/events", Path(directory)),
            stdout=log,
            stderr=log,
        )
        try:
            if subject in {"import httpx", "libraries"}:
                await asyncio.sleep(3)
                print(f"{subject:<14} {mib(memory(process.pid))}")
                return memory(process.pid)["Rss"]
            async with asyncio.timeout(60):
                await feed.subscribed.wait()
            start_s = cpu_s(process.pid)
            await asyncio.sleep(options.settle)
            before = wakeups(process.pid)
            for _ in range(HEARTBEATS):
                feed.writer.write(b":\n\n")
                await feed.writer.drain()
                await asyncio.sleep(options.interval)
            beaten = wakeups(process.pid)
            await asyncio.sleep(options.silence)
            silent = wakeups(process.pid)
            sizes = memory(process.pid)
            print(
                f"{subject:<14} {mib(sizes)}\n"
                f"  {beaten - before} wakeups for {HEARTBEATS} heartbeats, "
                f"{silent - beaten} in {options.silence:g} s of silence "
                f"({(silent - beaten) * 3600 / options.silence:.0f} an hour between "
                f"heartbeats)\n  start to subscribed {start_s:.2f} s CPU"
            )
            return sizes["Rss"]
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            log.close()
            server.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    subjects = ["import httpx", "libraries", "subscription", "daemon"]
    arguments.add_argument("--only", choices=subjects)
    arguments.add_argument("--interval", type=float, default=0.1, metavar="S")
    arguments.add_argument("--settle", type=float, default=5.0, metavar="S")
    arguments.add_argument("--silence", type=float, default=20.0, metavar="S")
    options = arguments.parse_args()
    os.environ.pop("MALLOC_ARENA_MAX", None)
    print(f"CPython {platform.python_version()}, {sys.executable}")
    rss = {
        subject: asyncio.run(measure(subject, options))
        for subject in ([options.only] if options.only else subjects)
    }
    if not options.only:
        ratio = rss["daemon"] / rss["import httpx"]
        own = rss["daemon"] - rss["libraries"]
        print(
            f"the daemon is {ratio:.2f} times `import httpx`, "
            f"and {own:.1f} MiB more than its libraries"
        )


if __name__ == "__main__":
    main()
