# SPDX-License-Identifier: Apache-2.0
"""Each request by its own way: through the proxy that is for it, or through none."""

from collections.abc import Callable

import httpx

from updaterd.core.proxies import Proxies


class RoutedTransport(httpx.AsyncBaseTransport):
    """Asks `proxies` for each request, and has one transport for each answer.

    Args:
        proxies: which proxy is for which request.
        make: makes a transport, given the proxy's address or None.
    """

    def __init__(
        self,
        proxies: Proxies,
        make: Callable[[str | None], httpx.AsyncBaseTransport],
    ) -> None:
        self._proxies = proxies
        self._make = make
        self._ways: dict[str | None, httpx.AsyncBaseTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, with its body still to come."""
        url = request.url
        host = url.raw_host.decode("ascii")
        proxy = self._proxies.for_request(url.scheme, host, url.port)
        if proxy not in self._ways:
            self._ways[proxy] = self._make(proxy)
        return await self._ways[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        """Close every way."""
        ways, self._ways = self._ways, {}
        for way in ways.values():
            await way.aclose()
