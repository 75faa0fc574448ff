# SPDX-License-Identifier: Apache-2.0
"""How a connection is made: TLS, proxies, headers, and which addresses are allowed.

A short-lived process asks by `Fetcher`, which loads httpx only where a proxy is in the
way (docs/decisions/0041). The daemon's stream is httpx's, over `direct`.
"""

from updaterd.net.addresses import (
    USER_AGENT,
    origin_of,
    read_headers,
    require_secure,
)
from updaterd.net.answer import Stream
from updaterd.net.authorities import tls_context
from updaterd.net.body import WORTHWHILE, ShortAnswerError
from updaterd.net.failures import HttpError, MisbehavedError, NotFoundError
from updaterd.net.fetcher import DEADLINE_S, MIN_RATE, Fetcher
from updaterd.net.proxies import environment_proxies, proxy_fault

__all__ = [
    "DEADLINE_S",
    "MIN_RATE",
    "USER_AGENT",
    "WORTHWHILE",
    "Fetcher",
    "HttpError",
    "MisbehavedError",
    "NotFoundError",
    "ShortAnswerError",
    "Stream",
    "environment_proxies",
    "origin_of",
    "proxy_fault",
    "read_headers",
    "require_secure",
    "tls_context",
]
