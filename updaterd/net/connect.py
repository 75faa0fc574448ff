"""Clients, TLS, headers files, and which addresses may be asked at all."""

import contextlib
import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import PurePath
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from updaterd import __version__
from updaterd.errors import BrokenError
from updaterd.net.direct import DirectTransport

USER_AGENT = f"updaterd/{__version__}"

_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # openssl-rehash(1)


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
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip().replace("-", "").isalnum():
            raise BrokenError(
                f"line {number} of {path} is not `Name: value`", code="headers_file"
            )
        found[name.strip()] = value.strip()
    return found


def tls_context(ca_file: PurePath | None) -> ssl.SSLContext:
    """Return a verifying TLS context: the system's CAs, or only `ca_file`'s.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured by OpenSSL itself.

    Raises:
        BrokenError: `ca_file` cannot be read or holds no certificate.
    """
    try:
        if ca_file is not None:
            context = ssl.create_default_context(cafile=str(ca_file))
        elif (folder := _hashed_store()) is not None:
            context = ssl.create_default_context(capath=folder)
        else:
            context = ssl.create_default_context()
    except (OSError, ssl.SSLError) as error:
        raise BrokenError(
            f"cannot use the CA file {ca_file}: {error}",
            do="point ca_file at a PEM file with your CA's certificate",
            code="ca_file",
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _hashed_store() -> str | None:
    """Return the system's folder of CAs by hash, if it has one.

    From there OpenSSL reads the one CA that it needs; of the bundle it keeps all,
    which is 2 MiB.
    """
    paths = ssl.get_default_verify_paths()
    named = {paths.openssl_cafile_env, paths.openssl_capath_env} & os.environ.keys()
    if named or paths.capath is None:
        return None
    with contextlib.suppress(OSError), os.scandir(paths.capath) as entries:
        if any(_HASHED.fullmatch(entry.name) for entry in entries):
            return paths.capath
    return None


def open_client(
    *,
    headers: Mapping[str, str] | None = None,
    headers_file: PurePath | None = None,
    ca_file: PurePath | None = None,
    proxy: str | None = None,
    timeout: httpx.Timeout | float = 30.0,
) -> httpx.AsyncClient:
    """Return an HTTP client that follows no redirect by itself.

    Proxies and `no_proxy` come from the environment unless `proxy` is given.

    Raises:
        BrokenError: headers file, CA file or proxy cannot be used.
    """
    try:
        return httpx.AsyncClient(
            headers=_with_file(headers, headers_file),
            verify=tls_context(ca_file),
            proxy=proxy,
            timeout=timeout,
            follow_redirects=False,
            cookies=_no_cookies(),
        )
    except (ImportError, ValueError) as error:
        raise BrokenError(
            f"cannot use the proxy: {error}",
            do="for socks5:// install the package `socksio` (updaterd[socks])",
            code="proxy",
        ) from error


def open_stream_client(
    *,
    headers_file: PurePath | None = None,
    ca_file: PurePath | None = None,
    proxy: str | None = None,
) -> httpx.AsyncClient:
    """Return a client for one stream that stays open: `open_client`, but small.

    With a proxy, given or in the environment, it is `open_client`'s.

    Raises:
        BrokenError: headers file, CA file or proxy cannot be used.
    """
    if proxy is not None or getproxies().keys() & {"http", "https", "all"}:
        return open_client(headers_file=headers_file, ca_file=ca_file, proxy=proxy)
    return httpx.AsyncClient(
        headers=_with_file(None, headers_file),
        transport=DirectTransport(tls_context(ca_file)),
        trust_env=False,
        follow_redirects=False,
        cookies=_no_cookies(),
    )


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
