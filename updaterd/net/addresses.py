# SPDX-License-Identifier: Apache-2.0
"""Which addresses may be asked, what they have in common, and headers from a file."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from updaterd import __version__
from updaterd.core.text import public_url
from updaterd.errors import BrokenError
from updaterd.files import regular

USER_AGENT = f"updaterd/{__version__}"
_LONGEST = 64 * 1024  # of the file with a machine's token


def require_secure(url: str) -> str:
    """Return `url` when it is https, or http to this very machine.

    Raises:
        BrokenError: anything else; the configuration names it.
    """
    if is_secure(url):
        return url
    raise BrokenError(
        f"{public_url(url)!r:.200} is not an https address",
        means="updates over plain http could be watched and held back",
        do="use https, or http only to a loopback address",
        code="insecure_url",
    )


def is_secure(url: str) -> bool:
    """Tell whether an address is https, or http to this very machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if not parts.hostname:
        return False
    return parts.scheme == "https" or (
        parts.scheme == "http" and _is_loopback(parts.hostname)
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    import ipaddress  # noqa: PLC0415 - most addresses are https: not for them

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


def token_headers(path: PurePath | None, url: str) -> Mapping[str, str]:
    """Return the header by which an enrolled machine is known to the server of `url`.

    None where it was enrolled at another one: a token is for whoever gave it out.
    Neither where the file is missing or damaged; a server that wants one says so.
    """
    if path is None:
        return {}
    try:
        known = json.loads(regular.read(Path(path), _LONGEST))
        origin = known["origin"]
        if (origin["scheme"], origin["host"], origin["port"]) == origin_of(url):
            return {"Authorization": f"Bearer {known['token']}"}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return {}
