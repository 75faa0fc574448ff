# SPDX-License-Identifier: Apache-2.0
"""Which proxy a request goes through, as the environment has it.

`http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower or upper case, are
written by distributions, desktops, containers and people, each in a way of its own. A
value that cannot be understood is left out and named, and the others count: an updater
that ends because of one brings no update that would help.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TypeAlias
from urllib.parse import urlsplit

from updaterd.core.dataclass import dataclass
from updaterd.core.text import printable

KINDS = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443}

_Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"  # on demand


@dataclass(frozen=True, slots=True)
class Exempt:
    """One entry of `no_proxy`: a name with what is below it, or a network.

    Attributes:
        name: in lower case, without a leading dot; "" where `network` counts.
        network: addresses; None where `name` counts.
        port: the only port it is about; None for every port.
    """

    name: str = ""
    network: "_Network | None" = None
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        """Tell whether requests to `host` at `port` go past the proxy."""
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return host == self.name or host.endswith(f".{self.name}")
        try:
            return ipaddress.ip_address(host) in self.network
        except ValueError:
            return False  # a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """What the environment says.

    Attributes:
        addresses: of the proxy for each scheme, "http" and "https".
        exempt: what goes past them.
        ignored: a sentence for each value that was left out.
    """

    addresses: Mapping[str, str] = field(default_factory=dict)
    exempt: tuple[Exempt, ...] = ()
    ignored: tuple[str, ...] = ()

    def for_request(self, scheme: str, host: str, port: int | None) -> str | None:
        """Return the address of the proxy for a request; None for none."""
        address = self.addresses.get(scheme)
        if address is None:
            return None
        host = host.lower().rstrip(".").strip("[]")
        port = _PORTS.get(scheme, 0) if port is None else port
        return None if any(e.covers(host, port) for e in self.exempt) else address


def fault_of(address: str) -> str:
    """Return why a proxy's address cannot be used; "" when it can."""
    if "://" not in address:
        return "has no scheme: write http:// (or https://, socks5://) before it"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return printable(f"is not an address: {error}", longest=200)
    if parts.scheme not in KINDS:
        known = ", ".join(KINDS)
        return printable(f"has the scheme {parts.scheme!r}, none of {known}")
    if not host or not address.isprintable() or any(c.isspace() for c in address):
        return "names no host, or holds blanks"
    portless = port == 0 or parts.netloc.endswith(":")
    return "names no port after its colon" if portless else ""


def read(
    environment: Mapping[str, str], *, usable: Callable[[str], str] = fault_of
) -> Proxies:
    """Return the proxies that an environment names.

    Args:
        environment: all of it.
        usable: why an address cannot be used here, "" when it can.
    """
    ignored: list[str] = []
    addresses: dict[str, str] = {}
    for scheme in ("http", "https"):
        for kind in (scheme, "all"):
            name, value = _variable(environment, f"{kind}_proxy")
            if not value:
                continue
            # curl's rule: without a scheme it is an http proxy
            address = value if "://" in value else f"http://{value}"
            if why := usable(address):
                _add(ignored, f"{name} is ignored: it {why}")
                continue
            addresses[scheme] = address
            break
    name, value = _variable(environment, "no_proxy")
    entries = [entry.strip() for entry in value.replace(" ", ",").split(",")]
    if "*" in entries:
        return Proxies(ignored=tuple(ignored))
    exempt = []
    for entry in filter(None, entries):
        exemption = read_exempt(entry)
        if exemption is None:
            shown = printable(repr(entry), longest=80)
            _add(
                ignored,
                f"{shown} in {name} is ignored: it is not a host, address or network",
            )
        else:
            exempt.append(exemption)
    return Proxies(addresses=addresses, exempt=tuple(exempt), ignored=tuple(ignored))


def read_exempt(entry: str) -> Exempt | None:
    """Return one entry of `no_proxy`; None when it cannot be understood.

    A host, `.host` and `*.host` (with all below it), an address, `[::1]`, a network
    `10.0.0.0/8`, each but the last with or without `:port`.
    """
    text, port = _split_port(entry)
    bare = text.strip("[]") if text.startswith("[") == text.endswith("]") else ""
    try:
        return Exempt(network=ipaddress.ip_network(bare, strict=False), port=port)
    except ValueError:
        pass
    name = text.lower().removeprefix("*").strip(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return None
    parts = name.split(".")
    if not all(
        part and part.replace("-", "").replace("_", "").isalnum() for part in parts
    ):
        return None
    return None if port == -1 else Exempt(name=name, port=port)


def _split_port(entry: str) -> tuple[str, int | None]:
    """Return an entry without its port, and the port; -1 for one that is none."""
    host, colon, digits = entry.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return entry, None  # no port, or an IPv6 address
    if digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 2**16:
        return host, int(digits[:6])
    return ("", -1) if not host.startswith("[") else (entry, None)


def _variable(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return a variable's name and value; in lower case it goes before upper case."""
    upper = name.upper()
    if name in environment:
        return name, environment[name].strip()
    if upper == "HTTP_PROXY" and "REQUEST_METHOD" in environment:
        return upper, ""  # CGI: a stranger's header `Proxy:` (httpoxy.org)
    return upper, environment.get(upper, "").strip()


def _add(ignored: list[str], sentence: str) -> None:
    if sentence not in ignored:
        ignored.append(sentence)
