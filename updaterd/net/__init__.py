# SPDX-License-Identifier: Apache-2.0
"""How a connection is made: TLS, proxies, headers, and which addresses are allowed.

Everything that speaks HTTP as a client gets its `httpx` from here.
"""

from updaterd.net.authorities import tls_context
from updaterd.net.body import WORTHWHILE, ShortAnswerError
from updaterd.net.connect import (
    USER_AGENT,
    environment_proxies,
    open_client,
    origin_of,
    proxy_fault,
    read_headers,
    require_secure,
)
from updaterd.net.failures import HttpError, MisbehavedError, NotFoundError
from updaterd.net.fetcher import DEADLINE_S, Fetcher, Stream

__all__ = [
    "DEADLINE_S",
    "USER_AGENT",
    "WORTHWHILE",
    "Fetcher",
    "HttpError",
    "MisbehavedError",
    "NotFoundError",
    "ShortAnswerError",
    "Stream",
    "environment_proxies",
    "open_client",
    "origin_of",
    "proxy_fault",
    "read_headers",
    "require_secure",
    "tls_context",
]
