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


def findings(settings: Settings) -> list[Finding]:
    """Return which servers do not answer as they should."""
    return [*_feed(settings), *_repository(settings), *_mirrors(settings)]


def _fetcher(settings: Settings) -> net.Fetcher:
    network = settings.trust.network
    return net.Fetcher(
        headers=network.headers,
        headers_file=network.headers_file,
        token_file=network.token_file,
        ca_file=network.ca_file,
        proxy=network.proxy,
        origin=settings.trust.repository,
        deadline_s=_DEADLINE_S,
    )


def _repository(settings: Settings) -> Iterator[Finding]:
    """Ask for what every look begins with."""
    url = f"{settings.trust.repository}/{layout.METADATA}/{layout.TIMESTAMP}"
    try:
        with _fetcher(settings) as fetcher:
            fetcher.get(url, limit=_LARGEST_TIMESTAMP)
    except UpdaterError as error:
        yield of_error("trust.repository", error)


def _mirrors(settings: Settings) -> Iterator[Finding]:
    """A mirror has blobs only, of which nothing is known here: any answer will do."""
    for mirror in settings.trust.mirrors:
        try:
            with _fetcher(settings) as fetcher:
                fetcher.get(f"{mirror}/", limit=_LARGEST_TIMESTAMP)
        except (net.HttpError, net.MisbehavedError):
            continue
        except UpdaterError as error:
            yield of_error("trust.mirrors", error)


def _feed(settings: Settings) -> Iterator[Finding]:
    try:
        asyncio.run(_subscribe(settings))
    except UpdaterError as error:
        yield of_error("feed.url", error)


async def _subscribe(settings: Settings) -> None:
    """Hold the subscription for a moment.

    Raises:
        UpdaterError: there is none.
    """
    feed, answered = settings.feed, asyncio.Event()

    def note(state: ConnectionState) -> None:
        if state.phase in ("open", "stopped"):
            answered.set()

    async with EventSource(
        feed.url,
        headers=feed.network.headers,
        headers_file=feed.network.headers_file,
        token_file=feed.network.token_file,
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
