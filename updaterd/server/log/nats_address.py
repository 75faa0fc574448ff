# SPDX-License-Identifier: Apache-2.0
"""The address of a log in NATS: servers, who we are there, and how we know them.

nats://USER:PASSWORD@HOST:PORT,HOST:PORT?stream=updaterd&replicas=3
tls://HOST?creds=/etc/updaterd-feed/feed.creds&ca=/etc/updaterd-feed/nats-ca.pem
"""

import re
import ssl
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

_PORT = 4222
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_FILES = {"creds", "nkey", "ca", "cert", "key"}
_QUERY = {*_FILES, "stream", "replicas"}
_MOST_REPLICAS = 5  # what NATS allows


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says.

    Attributes:
        servers: `nats://HOST:PORT`, without credentials.
        is_private: TLS, or nothing is said.
        user: with `password`, or empty.
        password: see `user`.
        token: instead of both, or empty.
        files: paths by what they are for: `creds`, `nkey`, `ca`, `cert`, `key`.
        stream: name of the stream, and first word of its subjects.
        replicas: of a stream that we make; one that is there keeps its own.
    """

    servers: tuple[str, ...]
    is_private: bool
    user: str
    password: str
    token: str
    files: dict[str, str]
    stream: str
    replicas: int


def read_address(url: str) -> Address:
    """Return what an address says.

    Raises:
        ValueError: it cannot be read; the text names no secret.
    """
    parts = urlsplit(url)
    identity, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = identity.partition(":")
    if parts.path not in {"", "/"} or parts.fragment:
        raise ValueError("nothing may stand behind its hosts but ?NAME=VALUE")
    query = _read_query(parts.query)
    stream = query.pop("stream", "updaterd")
    replicas = query.pop("replicas", "1")
    if _STREAM.fullmatch(stream) is None:
        raise ValueError("stream is no name of up to 40 letters, digits, - and _")
    if not replicas.isdecimal() or not 1 <= int(replicas) <= _MOST_REPLICAS:
        raise ValueError(f"replicas is no number from 1 to {_MOST_REPLICAS}")
    if ("cert" in query) != ("key" in query):
        raise ValueError("cert and key belong together")
    if sum((bool(identity), "creds" in query, "nkey" in query)) > 1:
        raise ValueError("it has more than one of USER:PASSWORD, creds and nkey")
    is_private = parts.scheme.lower() == "tls"
    if not is_private and query.keys() & {"ca", "cert", "key"}:
        raise ValueError("ca, cert and key are of tls://")
    return Address(
        servers=tuple(_read_host(host) for host in hosts.split(",")),
        is_private=is_private,
        user=unquote(user) if colon else "",
        password=unquote(password),
        token="" if colon else unquote(user),
        files=query,
        stream=stream,
        replicas=int(replicas),
    )


def _read_query(text: str) -> dict[str, str]:
    query = {}
    for name, value in parse_qsl(text, keep_blank_values=True, strict_parsing=True):
        if name not in _QUERY or name in query:
            raise ValueError(f"of ?NAME=VALUE it knows {', '.join(sorted(_QUERY))}")
        if name in _FILES and not value.startswith("/"):
            raise ValueError(f"{name} is no absolute path")
        query[name] = value
    return query


def _read_host(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        host, port = None, 0
    if not host:
        raise ValueError("one of its hosts cannot be read")
    return f"nats://[{host}]:{port}" if ":" in host else f"nats://{host}:{port}"


class Privacy(ssl.SSLContext):
    """How a connection becomes private, and whether it did.

    A server says in the clear whether it wants TLS, and the library believes it:
    whoever is between could say no, and be told the password. So it is noticed here
    whether the handshake began, before anything is said that is not for everybody.

    Attributes:
        has_begun: a handshake did; the library says nothing before it is over.
    """

    has_begun = False

    def wrap_bio(self, *words: object, **more: object) -> ssl.SSLObject:
        """See `ssl.SSLContext.wrap_bio`."""
        self.has_begun = True
        return super().wrap_bio(*words, **more)  # type: ignore[arg-type] # as they came

    @classmethod
    def of(cls, address: Address) -> "Privacy":
        """Return what an address asks for, for one connection.

        Raises:
            OSError: a file cannot be read, or is no certificate.
        """
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca := address.files.get("ca"):
            context.load_verify_locations(ca)
        else:
            context.load_default_certs()
        if cert := address.files.get("cert"):
            context.load_cert_chain(cert, address.files["key"])
        return context
