# SPDX-License-Identifier: Apache-2.0
"""Headers that both sinks send: those of a stream, of CORS and of a refusal."""

from updaterd.server.options import Options
from updaterd.server.streams.request import STREAM_TYPE
from updaterd.server.streams.stream import Refusal

STREAM_HEADERS = {
    "content-type": STREAM_TYPE,
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would hold events back
}


def cors(options: Options, origin: str) -> dict[str, str]:
    """Return the headers that let a page of this origin read the answer."""
    if "*" in options.origins:
        return {"access-control-allow-origin": "*"}
    if not options.origins:
        return {}
    if origin in options.origins:
        return {"access-control-allow-origin": origin, "vary": "origin"}
    return {"vary": "origin"}


def refusal_headers(refusal: Refusal) -> dict[str, str]:
    """Return the headers that go with a refused stream."""
    if refusal.status == 401:
        return {"www-authenticate": "Bearer"}
    if refusal.retry_after_s:
        return {"retry-after": str(refusal.retry_after_s)}
    return {}
