# SPDX-License-Identifier: Apache-2.0
"""Clients, TLS, headers files, and which addresses may be asked at all."""

import ipaddress
import os
import ssl
from collections.abc import Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.util import find_spec
from pathlib import PurePath
from urllib.parse import urlsplit

import httpx

from updaterd import __version__
from updaterd.core.proxies import Proxies, fault_of
from updaterd.core.proxies import read as read_proxies
from updaterd.core.text import public_url
from updaterd.errors import BrokenError
from updaterd.net.authorities import stream_contexts, tls_context
from updaterd.net.direct import DirectTransport
from updaterd.net.routed import RoutedTransport

USER_AGENT = f"updaterd/{__version__}"


def require_secure(url: str) -> str:
    """Return `url` when it is https, or http to this very machine.

    Raises:
        BrokenError: anything else; the configuration names it.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname and _is_loopback(parts.hostname):
        return url
    raise BrokenError(
        f"{url!r:.200} is not an https address",
        means="updates over plain http could be watched and held back",
        do="use https, or http only to a loopback address",
        code="insecure_url",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port (RFC 6454 section 4); empty when there are none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0
    return parts.scheme, parts.hostname or "", port


def read_headers(path: PurePath) -> dict[str, str]:
    """Return the `Name: value` lines of a headers file.

    Secrets stay out of the process list and of world-readable configuration.

    Raises:
        BrokenError: the file cannot be read, or a line is not a header.
    """
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        raise BrokenError(
            f"cannot read the headers file {path}: {error}",
            do="make it readable for the daemon, one `Name: value` a line",
            code="headers_file",
        ) from error
    headers = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip().replace("-", "").isalnum():
            raise BrokenError(
                f"line {number} of {path} is not `Name: value`", code="headers_file"
            )
        headers[name.strip()] = value.strip()
    return headers


def environment_proxies() -> Proxies:
    """Return the proxies that this process's environment names."""
    return read_proxies(os.environ, usable=proxy_fault)


def proxy_fault(address: str) -> str:
    """Return why a proxy's address cannot be used on this machine; "" when it can."""
    if why := fault_of(address):
        return why
    try:
        httpx.Proxy(address)
    except (ValueError, httpx.InvalidURL) as error:
        return f"is not an address: {error}"
    if address.lower().startswith("socks") and find_spec("socksio") is None:
        return "needs the package `socksio`"
    return ""


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
