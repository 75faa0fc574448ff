# SPDX-License-Identifier: Apache-2.0
"""What an `Accept` header says about a media type (RFC 9110, 12.5.1)."""

import math


def quality(accept: str, media_type: str, version: str = "") -> float:
    """Return how welcome a media type is, 0 to 1; without a header everything is.

    The most specific range that fits counts: `text/html` before `text/*` before
    `*/*`. Of a range's parameters only `version` is looked at, and only where one is
    given here: what was asked for in another version is not this.

    Args:
        accept: value of the header; several of them joined by commas.
        media_type: such as `text/plain`.
        version: of the format that would be sent.
    """
    if not accept.strip():
        return 1.0
    main = media_type.partition("/")[0]
    ranks = {media_type: 2, f"{main}/*": 1, "*/*": 0}
    best: tuple[int, float] = (-1, 0.0)
    for entry in accept.split(","):
        name, *parameters = (part.strip() for part in entry.lower().split(";"))
        rank = ranks.get(name, -1)
        if rank < 0:
            continue
        values = dict(_parameter(text) for text in parameters)
        if version and rank == 2 and values.get("version", version) != version:
            continue
        best = max(best, (rank, _weight(values.get("q", "1"))))
    return best[1]


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip().strip('"')


def _weight(text: str) -> float:
    """Return a weight; of what is none nothing is known, so it counts as welcome."""
    try:
        value = float(text)
    except ValueError:
        return 1.0
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 1.0
