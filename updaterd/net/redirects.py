# SPDX-License-Identifier: Apache-2.0
"""Whether an answer that sends a machine elsewhere is followed, and where to.

Within its origin always. To another host only for files that are compared with a hash
that was signed, and only where the owner allows that host: release pages and object
stores answer so, with an address that is signed for a few minutes.
"""

from collections.abc import Collection
from urllib.parse import urljoin, urlsplit

from updaterd.core.text import public_url
from updaterd.net.addresses import is_secure, origin_of
from updaterd.net.failures import MisbehavedError


def next_hop(at: str, location: str, hosts: Collection[str] | None) -> str:
    """Return the address that an answer sends to.

    Args:
        at: what was asked for.
        location: the answer's header.
        hosts: allowed ones besides its own, as `allows` takes them; None: its
            contents are compared with no hash, so that none can be.

    Raises:
        MisbehavedError: it is not followed; the error says which host it is, and
            nothing of the rest of the address, which may be a secret.
    """
    try:
        to = urljoin(at, location)
    except ValueError:
        to = ""  # no address at all: of no origin
    if origin_of(to) == origin_of(at):
        return to
    scheme, host, _ = origin_of(to)
    shown = f"{scheme}://{host or '?'}"
    if hosts is None:
        raise MisbehavedError(
            f"{public_url(at):.200} redirects to another origin, {shown:.100}",
            means="the redirect was not followed: metadata comes from the configured "
            "server only",
            do="configure the final address",
            code="cross_origin_redirect",
        )
    if not allows(hosts, to):
        raise MisbehavedError(
            f"{public_url(at):.200} redirects to another host, {shown:.100}",
            means="the redirect was not followed: the owner of this machine has not "
            "allowed that host",
            do=f'allow it, [download] redirect_hosts = ["{host:.100}"], or configure '
            "the final address",
            code="cross_origin_redirect",
        )
    if not is_secure(to) or "@" in urlsplit(to).netloc:
        raise MisbehavedError(
            f"{public_url(at):.200} redirects to {shown:.100}, which is not https or "
            "carries credentials",
            means="the redirect was not followed",
            do="let the server redirect to https addresses",
            code="cross_origin_redirect",
        )
    return to


def allows(hosts: Collection[str], url: str) -> bool:
    """Tell whether the host of an address is among some.

    Args:
        hosts: `objects.example.com`, for its usual port, or `host:8443`; a first
            `*.` stands for one label or more.
        url: the address.
    """
    scheme, host, port = origin_of(url)
    usual = port == {"https": 443, "http": 80}.get(scheme)
    names = {f"{host}:{port}", *([host] if usual else ())}
    return any(
        name == allowed or (allowed.startswith("*.") and name.endswith(allowed[1:]))
        for name in names
        for allowed in (entry.lower() for entry in hosts)
    )
