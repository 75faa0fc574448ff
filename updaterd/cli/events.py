# SPDX-License-Identifier: Apache-2.0
"""`updaterd events URL`: a feed's events, one JSON line each. For debugging feeds.

Standard output carries the lines and nothing else; what happens to the connection
is told on standard error.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from updaterd.core.sse import Event
    from updaterd.feed.client import ConnectionState, EventSource
    from updaterd.feed.cursor_file import Resume

_DEFAULT_IDLE_S = 45.0
_DEFAULT_RETRY_MS = 1000.0
_SHORTEST_S = 0.001
_LONGEST_WAIT_S = 30.0  # a person is watching; the daemon waits up to minutes


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _or_zero(text: str) -> float:
    return 0.0 if text == "0" else _positive(text)


def _text(argument: str) -> str:
    argument.encode()  # a UnicodeError is a ValueError: wrong usage
    return argument


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("url", metavar="URL", help="the feed, http or https")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="keep the last event id in DIR, and continue after it next time",
    )
    parser.add_argument(
        "--idle",
        type=_or_zero,
        default=_DEFAULT_IDLE_S,
        metavar="S",
        help="reconnect after S silent seconds (default: %(default)g; 0: never)",
    )
    parser.add_argument(
        "--retry-ms",
        type=_or_zero,
        default=_DEFAULT_RETRY_MS,
        metavar="MS",
        help="reconnection time until the feed names one (default: %(default)g); the "
        "wait is at least that, at most twice, and doubles while nothing comes",
    )
    parser.add_argument(
        "--last-event-id",
        type=_text,
        metavar="ID",
        help="continue after this event, not after the one that --state has stored",
    )
    parser.add_argument(
        "--headers-file",
        type=Path,
        metavar="FILE",
        help="send these headers, one `Name: value` a line",
    )
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="trust only this CA"
    )
    parser.add_argument(
        "--proxy", metavar="URL", help="use this proxy, not the environment's"
    )
    parser.epilog = (
        'a line: {"id": last event id, "event": type, "data": text}\n'
        "proxies (http_proxy, https_proxy, all_proxy, no_proxy) and SSL_CERT_FILE are "
        "taken from the environment\n"
        "exits with 0 when the feed answers 204 (do not connect again)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print events until the feed, or the user, says stop."""
    import asyncio

    from updaterd.feed.cursor_file import Resume
    from updaterd.net import environment_proxies

    resume = None
    if arguments.state is not None:
        resume = Resume(arguments.state)
        if resume.set_aside is not None:
            _say(f"the state was damaged ({resume.why}), now {resume.set_aside}")
    if arguments.proxy is None:
        for reason in environment_proxies().ignored:
            _say(reason)
    asyncio.run(_print_events(arguments, resume))
    return 0


async def _print_events(arguments: argparse.Namespace, resume: "Resume | None") -> None:
    start = arguments.last_event_id
    if start is None and resume is not None:
        start = resume.last_event_id
    retry_s = arguments.retry_ms / 1000

    def keep(last_event_id: str) -> None:
        if resume is not None:
            resume.save(last_event_id, url=arguments.url, sync=True)

    async with _open(arguments, start, retry_s, keep) as source:
        async for event in source:
            for item in (event, *source.take_ready()):
                _print(item)
                if resume is not None:
                    resume.save(item.id, url=arguments.url, sync=False)
            if resume is not None:
                keep(source.last_event_id)


def _open(
    arguments: argparse.Namespace,
    start: str | None,
    retry_s: float,
    keep: "Callable[[str], None]",
) -> "EventSource":
    from updaterd.core.backoff import FIRST_WINDOW, Backoff
    from updaterd.feed.client import EventSource

    return EventSource(
        arguments.url,
        last_event_id=start,
        headers_file=arguments.headers_file,
        ca_file=arguments.ca_file,
        proxy=arguments.proxy,
        backoff=Backoff(base=retry_s / FIRST_WINDOW, cap=max(_LONGEST_WAIT_S, retry_s)),
        retry_s=retry_s,
        idle_timeout_s=arguments.idle,
        on_state=_tell_state,
        on_cursor=keep,
    )


def _print(event: "Event") -> None:
    import json
    import sys

    line = json.dumps({"id": event.id, "event": event.event, "data": event.data})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tell_state(state: "ConnectionState") -> None:
    if state.phase == "waiting":
        _say(f"{state.error} ({state.code}); again in {state.retry_in_s:.1f} s")
    elif state.phase == "stopped":
        _say(f"{state.error} ({state.code})")
    elif state.note:
        _say(state.note)


def _say(text: str) -> None:
    import sys

    from updaterd.core.text import printable

    print(f"updaterd: {printable(text)}", file=sys.stderr, flush=True)
