# SPDX-License-Identifier: Apache-2.0
"""Clients of httpx: for the stream of the daemon, and for what goes through a proxy."""

import ssl
from collections.abc import Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import PurePath

import httpx

from updaterd.core.text import public_url
from updaterd.errors import BrokenError
from updaterd.net.addresses import USER_AGENT, read_headers
from updaterd.net.authorities import stream_contexts, tls_context
from updaterd.net.direct import DirectTransport
from updaterd.net.proxies import environment_proxies, proxy_fault
from updaterd.net.routed import RoutedTransport


def open_client(
    *,
    headers: Mapping[str, str] | None = None,
    headers_file: PurePath | None = None,
    ca_file: PurePath | None = None,
    proxy: str | None = None,
    timeout: httpx.Timeout | float = 30.0,
) -> httpx.AsyncClient:
    """Return an HTTP client that follows no redirect by itself.

    Proxies and `no_proxy` come from the environment unless `proxy` is given; what
    cannot be understood there is left out (`environment_proxies`).

    Raises:
        BrokenError: headers file, CA file or proxy cannot be used.
    """
    tls = tls_context(ca_file)
    return httpx.AsyncClient(
        headers=_with_file(headers, headers_file),
        transport=_transport(
            proxy,
            lambda address: _through(address, tls),
            direct=lambda: _through(None, tls),
        ),
        trust_env=False,
        timeout=timeout,
        follow_redirects=False,
        cookies=_no_cookies(),
    )


def open_stream_client(
    *,
    headers_file: PurePath | None = None,
    ca_file: PurePath | None = None,
    proxy: str | None = None,
) -> httpx.AsyncClient:
    """Return a client for one stream that stays open: `open_client`, but small.

    What goes through a proxy, given or in the environment, goes httpx's own way.

    Raises:
        BrokenError: headers file, CA file or proxy cannot be used.
    """
    small, whole = stream_contexts(ca_file)

    def through(address: str) -> httpx.AsyncBaseTransport:
        return _through(address, tls_context(ca_file))

    return httpx.AsyncClient(
        headers=_with_file(None, headers_file),
        transport=_transport(
            proxy, through, direct=lambda: DirectTransport(small, whole)
        ),
        trust_env=False,
        follow_redirects=False,
        cookies=_no_cookies(),
    )


def _transport(
    proxy: str | None,
    through: Callable[[str], httpx.AsyncBaseTransport],
    *,
    direct: Callable[[], httpx.AsyncBaseTransport],
) -> httpx.AsyncBaseTransport:
    """Return what carries a client's requests.

    Raises:
        BrokenError: `proxy` cannot be used.
    """
    if proxy is not None:
        if why := proxy_fault(proxy):
            raise BrokenError(
                f"cannot use the proxy {public_url(proxy)!r:.200}: it {why}",
                do="install it: pip install 'updaterd[socks]'"
                if "socksio" in why
                else "correct `proxy`",
                code="proxy",
            )
        return through(proxy)
    proxies = environment_proxies()
    if not proxies.addresses:
        return direct()
    return RoutedTransport(
        proxies, lambda address: direct() if address is None else through(address)
    )


def _through(address: str | None, tls: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    proxy = None
    if address is not None:
        secure = address.lower().startswith("https:")
        proxy = httpx.Proxy(address, ssl_context=tls if secure else None)
    return httpx.AsyncHTTPTransport(verify=tls, trust_env=False, proxy=proxy)


def _no_cookies() -> CookieJar:
    """Return a jar that stays empty: for years, and whoever asks to be remembered."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def _with_file(
    headers: Mapping[str, str] | None, headers_file: PurePath | None
) -> dict[str, str]:
    merged = {"User-Agent": USER_AGENT, **(headers or {})}
    if headers_file is not None:
        merged.update(read_headers(headers_file))
    return merged
