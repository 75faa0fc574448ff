# SPDX-License-Identifier: Apache-2.0
"""`updaterd events`: what others may rely on, tried from outside."""

# Servers before clients, whatever it nests; another process can only be polled.
# ruff: noqa: SIM117, ASYNC110

import asyncio
import contextlib
import json
import os
import signal
import sys

import pytest
from fakes.certificates import make_certificate
from fakes.feed_server import FeedServer, answer, stream

PATIENCE_S = 60
THREE = b"id: 1\ndata: a\n\nid: 2\nevent: t\ndata: b\ndata: c\n\ndata: \xe2\x80\xa6\n\n"
LINES = [
    {"id": "1", "event": "message", "data": "a"},
    {"id": "2", "event": "t", "data": "b\nc"},
    {"id": "2", "event": "message", "data": "…"},
]


class Command:
    """A running `updaterd events`."""

    def __init__(self, process):
        self.process = process

    async def lines(self, count):
        """Return the next lines, as they are flushed."""
        raw = [await self.process.stdout.readline() for _ in range(count)]
        return [json.loads(line) for line in raw]

    async def kill(self):
        self.process.kill()
        return await self.rest()

    async def rest(self):
        """Return what is left of standard output, and standard error."""
        out, err = await self.process.communicate()
        return out.decode(), err.decode()


@contextlib.asynccontextmanager
async def events(*arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    async with asyncio.timeout(PATIENCE_S):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "updaterd", "events", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean | environment,
        )
        try:
            yield Command(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


async def test_a_flushed_json_line_for_each_event_and_nothing_else():
    async with FeedServer(
        stream(b": hi\n\nid: 0\n\n" + THREE, ending="hold")
    ) as server:
        async with events(server.url) as command:
            assert await command.lines(3) == LINES
            out, _ = await command.kill()
    assert out == ""


async def test_it_reconnects_and_goes_on_from_where_it_was():
    answers = stream(b"retry: 20\n" + THREE), answer(503), stream(THREE, ending="hold")
    async with FeedServer(*answers) as server:
        async with events(server.url, "--retry-ms", "20") as command:
            assert await command.lines(6) == LINES + LINES
            _, err = await command.kill()
    assert server.requests[2].headers["last-event-id"] == "2"
    assert "http_503" in err


async def test_state_survives_sigkill(tmp_path):
    """What was printed is remembered; a kill leaves one half-made file at most.

    The next start clears it: the first kill's is gone when the second comes.
    """
    state = tmp_path / "new" / "state"
    async with FeedServer(stream(THREE + b"id: 9\n\n", ending="hold")) as server:
        async with events(server.url, "--state", str(state)) as command:
            await command.lines(3)
            await server.requested.wait()
            kept = state / "events.json"
            while not kept.exists() or b'"9"' not in kept.read_bytes():
                await asyncio.sleep(0.01)
            await command.kill()
        async with events(server.url, "--state", str(state)) as command:
            await command.lines(1)
    assert server.requests[1].headers["last-event-id"] == "9"
    names = {path.name for path in state.iterdir()}
    assert {name for name in names if not name.startswith(".")} == {"events.json"}
    assert len(names) <= 2


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"\0" * 2**23, b"{}", b'{"schema": 9, "last_event_id": "1"}', b"\xff\xfe{"],
    ids=["empty", "zeros", "no fields", "newer", "no text"],
)
async def test_a_damaged_state_is_set_aside_and_told(tmp_path, rubbish):
    (tmp_path / "events.json").write_bytes(rubbish)
    async with FeedServer(stream(THREE, ending="hold")) as server:
        async with events(server.url, "--state", str(tmp_path)) as command:
            assert await command.lines(3) == LINES
            _, err = await command.kill()
    assert "last-event-id" not in server.requests[0].headers
    assert (tmp_path / "events.json.corrupt-1").read_bytes() == rubbish
    assert "events.json.corrupt-1" in err
    assert json.loads((tmp_path / "events.json").read_text())["last_event_id"] == "2"


async def test_a_state_that_is_no_file_is_set_aside(tmp_path):
    """A pipe that nobody writes to is not waited for."""
    os.mkfifo(tmp_path / "events.json")
    async with FeedServer(stream(THREE, ending="hold")) as server:
        async with events(server.url, "--state", str(tmp_path)) as command:
            assert await command.lines(3) == LINES
            await command.kill()
    assert (tmp_path / "events.json.corrupt-1").is_fifo()


async def test_an_id_on_the_command_line_goes_before_the_state(tmp_path):
    (tmp_path / "events.json").write_text('{"schema": 1, "last_event_id": "1"}')
    state = ["--state", str(tmp_path)]
    async with FeedServer(stream(THREE, ending="hold")) as server:
        async with events(server.url, *state, "--last-event-id", "7") as command:
            await command.lines(1)
        async with events(server.url, *state) as command:
            await command.lines(1)
    assert server.requests[0].headers["last-event-id"] == "7"
    assert server.requests[1].headers["last-event-id"] in {"1", "2"}


async def test_silence_ends_a_connection():
    answers = stream(ending="hold"), stream(THREE, ending="hold")
    async with FeedServer(*answers) as server:
        async with events(server.url, "--idle", "0.2", "--retry-ms", "1") as command:
            await command.lines(3)
            _, err = await command.kill()
    assert "idle_timeout" in err


async def test_204_ends_it():
    async with FeedServer(answer(204)) as server, events(server.url) as command:
        out, err = await command.rest()
    assert (out, command.process.returncode) == ("", 0)
    assert "http_204" in err


async def test_proxy_from_the_environment():
    async with FeedServer(stream(THREE, ending="hold")) as proxy:
        address = proxy.url.removesuffix("/feed")
        async with events("http://feed.invalid/x", http_proxy=address) as command:
            await command.lines(3)
    assert proxy.requests[0].target == "http://feed.invalid/x"


async def test_ca_from_the_environment(tmp_path):
    ca_file, context = make_certificate(tmp_path)
    async with FeedServer(stream(THREE, ending="hold"), tls=context) as server:
        async with events(server.url, SSL_CERT_FILE=str(ca_file)) as command:
            await command.lines(3)
        async with events(server.url) as command:
            told = await command.process.stderr.readline()
            assert b"(tls)" in told


async def test_an_interrupt_is_no_traceback():
    async with FeedServer(stream(THREE, ending="hold")) as server:
        async with events(server.url) as command:
            await command.lines(3)
            command.process.send_signal(signal.SIGINT)
            _, err = await command.rest()
    assert command.process.returncode == 130
    assert "Traceback" not in err


async def test_a_reader_that_goes_away_ends_it():
    """`updaterd events URL | head -1`."""
    many = stream(*[b"data: x\n\n"] * 500, ending="hold", pause_s=0.01)
    async with FeedServer(many) as server, events(server.url) as command:
        await command.lines(1)
        command.process.stdout._transport.close()
        await command.process.wait()
        err = (await command.process.stderr.read()).decode()
    assert command.process.returncode == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [["ftp://a/"], ["nonsense"], ["http://a/", "--ca-file", "/nonexistent"]],
    ids=str,
)
async def test_mistakes_are_told_not_retried(arguments):
    async with events(*arguments) as command:
        out, err = await command.rest()
    assert command.process.returncode == 1
    assert out == ""
    assert "what to do" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["http://a/", "--idle", "-1"],
        ["http://a/", "--retry-ms", "x"],
        ["http://a/", "--last-event-id", b"\xff"],
    ],
    ids=str,
)
async def test_wrong_usage(arguments):
    async with events(*arguments) as command:
        await command.rest()
    assert command.process.returncode == 2


async def test_hostile_text_stays_within_its_line():
    """Control characters of a feed never reach the terminal raw."""
    hostile = "data: \x1b[2J\u202e\u2028\u0085\n\n".encode()
    async with FeedServer(stream(hostile, ending="hold")) as server:
        async with events(server.url) as command:
            raw = await command.process.stdout.readline()
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert json.loads(raw)["data"] == "\x1b[2J\u202e\u2028\u0085"
