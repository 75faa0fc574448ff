# SPDX-License-Identifier: Apache-2.0
"""Findings on the way to the servers: each address is asked once."""

import asyncio
from collections.abc import Iterator

from updaterd import net
from updaterd.cli.config.finding import Finding, of_error
from updaterd.core import layout
from updaterd.core.settings import Settings
from updaterd.errors import UpdaterError
from updaterd.feed.client import ConnectionState, EventSource

_DEADLINE_S = 15.0
_LARGEST_TIMESTAMP = 64 * 1024


def findings(given: Settings) -> list[Finding]:
    """Return which servers do not answer as they should."""
    return [*_feed(given), *_repository(given), *_mirrors(given)]


def _fetcher(given: Settings) -> net.Fetcher:
    network = given.trust.network
    return net.Fetcher(
        headers=network.headers,
        headers_file=network.headers_file,
        ca_file=network.ca_file,
        proxy=network.proxy,
        origin=given.trust.repository,
        deadline_s=_DEADLINE_S,
    )


def _repository(given: Settings) -> Iterator[Finding]:
    """Ask for what every look begins with."""
    url = f"{given.trust.repository}/{layout.METADATA}/{layout.TIMESTAMP}"
    try:
        with _fetcher(given) as fetcher:
            fetcher.get(url, limit=_LARGEST_TIMESTAMP)
    except UpdaterError as error:
        yield of_error("trust.repository", error)


def _mirrors(given: Settings) -> Iterator[Finding]:
    """A mirror has blobs only, of which nothing is known here: any answer will do."""
    for mirror in given.trust.mirrors:
        try:
            with _fetcher(given) as fetcher:
                fetcher.get(f"{mirror}/", limit=_LARGEST_TIMESTAMP)
        except (net.HttpError, net.MisbehavedError):
            continue
        except UpdaterError as error:
            yield of_error("trust.mirrors", error)


def _feed(given: Settings) -> Iterator[Finding]:
    try:
        asyncio.run(_subscribe(given))
    except UpdaterError as error:
        yield of_error("feed.url", error)


async def _subscribe(given: Settings) -> None:
    """Hold the subscription for a moment.

    Raises:
        UpdaterError: there is none.
    """
    feed, answered = given.feed, asyncio.Event()

    def note(state: ConnectionState) -> None:
        if state.phase in ("open", "stopped"):
            answered.set()

    async with EventSource(
        feed.url,
        headers=feed.network.headers,
        headers_file=feed.network.headers_file,
        ca_file=feed.network.ca_file,
        proxy=feed.network.proxy,
        reconnect=False,
        header_deadline_s=_DEADLINE_S,
        on_state=note,
    ) as source:
        first = asyncio.ensure_future(anext(source, None))
        heard = asyncio.create_task(answered.wait())
        await asyncio.wait({first, heard}, return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()
        await asyncio.wait({first}, timeout=0.05)
        if not first.done():
            first.cancel()
            await asyncio.wait({first})
        elif (error := first.exception()) is not None:
            raise error
