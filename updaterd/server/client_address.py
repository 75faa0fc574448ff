# SPDX-License-Identifier: Apache-2.0
"""The address that a request counts for: limits by address, and trusted proxies."""

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REMEMBERED = 4096
_CLIENT_PREFIX = 64  # of an IPv6 address: the rest is the client's own to choose


@lru_cache(maxsize=_REMEMBERED)  # it is asked twice for each connection
def read_address(text: str) -> Address | None:
    """Return the address that a socket or a proxy wrote, or None.

    `::ffff:192.0.2.1` is 192.0.2.1 (RFC 4291 section 2.5.5.2): so the clients of a
    socket that listens on `::` look. Some proxies add the port, `192.0.2.1:5000` or
    `[2001:db8::1]:5000` (RFC 7239 section 6); it is left away.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=_REMEMBERED)  # streams of one address share its text
def limit_key(text: str) -> str:
    """Return the key by which limits count: an IPv4 address, or an IPv6 /64."""
    try:
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):  # not IPv4, not plainly so, or a NUL in it
        return _other_key(text)
    return text


def _other_key(text: str) -> str:
    address = read_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        network = ipaddress.IPv6Network((int(address), _CLIENT_PREFIX), strict=False)
        return str(network.network_address)
    return text[:40] if address is None else str(address)


class Proxies:
    """The proxies whose X-Forwarded-For is believed.

    Args:
        networks: addresses and CIDR networks, `10.0.0.0/8`.

    Raises:
        ValueError: not a network, or with bits set beyond its prefix.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks: tuple[Network, ...] = tuple(map(read_network, networks))

    def trust(self, text: str) -> bool:
        """Tell whether the address is a trusted proxy."""
        if not self._networks:
            return False
        address = read_address(text)
        return address is not None and any(address in net for net in self._networks)

    def client_of(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return whom limits count for a request's headers; names in lower case."""
        if not self._networks:
            return limit_key(peer)
        forwarded: list[str] = []
        for name, value in headers:
            if name == b"x-forwarded-for":
                forwarded += value.decode("latin-1").split(",")
        return self.client(peer, forwarded)

    def client(self, peer: str, forwarded: list[str]) -> str:
        """Return whom limits count: the nearest address that is no proxy of ours.

        Args:
            peer: address of the other end of the connection.
            forwarded: X-Forwarded-For, nearest last; used up.
        """
        address = peer
        while forwarded and self.trust(address):
            farther = forwarded.pop()
            if read_address(farther) is None:
                break  # "unknown", or garbage: then it is the proxy that counts
            address = farther
        return limit_key(address)


def read_network(text: str) -> Network:
    """Return an address or CIDR network.

    Raises:
        ValueError: neither, or with bits set beyond its prefix.
    """
    network = ipaddress.ip_network(text.strip())
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
