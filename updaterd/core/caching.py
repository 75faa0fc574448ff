# SPDX-License-Identifier: Apache-2.0
"""How long a repository's file may be kept by who passes it on: clients, CDNs, proxies.

What is named by its hash or its version never changes; everything else is asked for
again each time. The feed server says so for its own files, and a destination is given
the same for those that are copied to it.
"""

from updaterd.core import layout

IMMUTABLE = "public, max-age=31536000, immutable"
FRESH = "no-cache"
"""Keep it, but ask each time: the answer is 304 while it is current."""


def cache_control(path: str) -> str:
    """Return `Cache-Control` of a file.

    Args:
        path: relative to the repository, with slashes.
    """
    immutable = layout.digest_in(path) is not None or layout.is_edition(path)
    return IMMUTABLE if immutable else FRESH


def content_type(path: str) -> str:
    """Return `Content-Type` of a file."""
    return "application/json" if path.endswith(".json") else "application/octet-stream"
