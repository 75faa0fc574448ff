# SPDX-License-Identifier: Apache-2.0
"""The body of a request, whole: no longer than allowed, and no slower."""

import asyncio
from collections.abc import Mapping

from starlette.types import Receive

from updaterd.errors import MalformedError

DEADLINE_S = 30.0
"""Seconds for a whole body."""


class GoneError(Exception):
    """Who sent the body has gone before it was whole."""


async def whole(
    headers: Mapping[bytes, bytes], receive: Receive, *, subject: str, most: int
) -> bytes:
    """Return a body.

    Args:
        headers: of the request, names in lower case.
        receive: gives its parts.
        subject: what it is, for whoever sent it.
        most: bytes that it may have.

    Raises:
        MalformedError: too large (`too_large`), or encoded: what a few bytes unpack
            to has no bound.
        TimeoutError: it did not come in time.
        GoneError: it was cut.
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise MalformedError(f"{subject} is taken without an encoding")
    body = bytearray()
    async with asyncio.timeout(DEADLINE_S):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            body += message.get("body", b"")
            if len(body) > most:
                raise MalformedError(
                    f"{subject} is larger than {most} bytes", code="too_large"
                )
            if not message.get("more_body", False):
                return bytes(body)
