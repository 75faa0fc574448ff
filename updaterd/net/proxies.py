# SPDX-License-Identifier: Apache-2.0
"""The proxies that this machine can use, of those that its environment names."""

import os
from importlib.util import find_spec

from updaterd.core.proxies import Proxies, fault_of
from updaterd.core.proxies import read as read_proxies


def environment_proxies() -> Proxies:
    """Return the proxies that this process's environment names."""
    return read_proxies(os.environ, usable=proxy_fault)


def proxy_fault(address: str) -> str:
    """Return why a proxy's address cannot be used on this machine; "" when it can."""
    if why := fault_of(address):
        return why
    import httpx  # noqa: PLC0415 - machines without a proxy do without it

    try:
        httpx.Proxy(address)
    except (ValueError, httpx.InvalidURL) as error:
        return f"is not an address: {error}"
    if address.lower().startswith("socks") and find_spec("socksio") is None:
        return "needs the package `socksio`"
    return ""
