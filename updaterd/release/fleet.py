# SPDX-License-Identifier: Apache-2.0
"""What machines reported, as the report server tells it to a publisher.

Evidence: it is shown to a person, and changes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from updaterd.core.report import CHANNEL_PATH, FLEET_PATH, RELEASE_PATH
from updaterd.errors import BrokenError, TransientError
from updaterd.net import Fetcher, HttpError

_LIMIT = 8 << 20
_EVENTS = "/v1/events"
_MOST_MACHINES = 10**9


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of a product, how many machines follow it, and its releases."""

    product: str
    channel: str
    machines: int
    releases: tuple[dict[str, Any], ...]


def address(feed: str) -> str:
    """Return where the counts are, by the address of the feed.

    Raises:
        BrokenError: it is no address of a feed.
    """
    if feed.endswith(FLEET_PATH):
        return feed
    if not feed.endswith(_EVENTS):
        raise BrokenError(
            f"{feed!r:.200} does not end in {_EVENTS}",
            do="give --feed or --reports an address that ends "
            f"in {_EVENTS} or {FLEET_PATH}",
            code="not_a_feed",
        )
    return feed.removesuffix(_EVENTS) + FLEET_PATH


def read(
    fetcher: Fetcher, url: str, *, product: str | None, limit: int
) -> tuple[Channel, ...]:
    """Return every channel that machines follow, with its newest releases.

    Args:
        fetcher: asks the network, with a token of the scope `fleet:read`.
        url: `address` of the counts.
        product: only this one.
        limit: releases of each channel.

    Raises:
        TransientError: the server cannot be reached.
        BrokenError: it does not know the token, takes no reports, or answers nonsense.
    """
    channels = []
    for row in _get(fetcher, url)["channels"]:
        if product in {None, row["product"]}:
            place = CHANNEL_PATH.removeprefix(FLEET_PATH).format(
                product=quote(row["product"]), channel=quote(row["channel"])
            )
            answer = _get(fetcher, f"{url}{place}?limit={limit}")
            channels.append(
                Channel(
                    row["product"],
                    row["channel"],
                    count(row),
                    tuple(answer["releases"]),
                )
            )
    return tuple(channels)


def population(fetcher: Fetcher, url: str) -> dict[tuple[str, str], int]:
    """Return how many machines follow each channel, by product and channel.

    Raises:
        TransientError: the server cannot be reached.
        BrokenError: it does not know the token, takes no reports, or answers nonsense.
    """
    rows = _get(fetcher, url)["channels"]
    return {(row["product"], row["channel"]): count(row) for row in rows}


def release(
    fetcher: Fetcher, url: str, product: str, channel: str, version: str
) -> dict[str, Any] | None:
    """Return what is known of one release; None: nobody has reported about it.

    By its name, and not by its place among others: who invents newer releases in
    reports cannot push it out of an answer.

    Raises:
        TransientError: the server cannot be reached.
        BrokenError: it does not know the token, or answers nonsense.
    """
    place = RELEASE_PATH.removeprefix(FLEET_PATH).format(
        product=quote(product), channel=quote(channel), version=quote(version, safe="")
    )
    try:
        return _get(fetcher, url + place)
    except BrokenError as error:
        if isinstance(error.__cause__, HttpError) and error.__cause__.status == 404:
            return None
        raise


def count(item: Mapping[str, Any]) -> int:
    """Return how many machines an item of an answer counts.

    Raises:
        ValueError: it is no number of machines; what is done with one may take as long
            as it is large.
    """
    machines = item["machines"]
    if type(machines) is not int or not 0 <= machines <= _MOST_MACHINES:
        raise ValueError(f"machines: {machines!r:.40}")
    return machines


def _get(fetcher: Fetcher, url: str) -> dict[str, Any]:
    try:
        document = json.loads(fetcher.get(url, limit=_LIMIT))
    except HttpError as error:
        if error.status in {401, 403}:
            raise BrokenError(
                f"{url} refuses the token ({error.status})",
                means="what machines reported is not known",
                do="make one with the scope fleet:read (`updaterd token create`, at "
                "the server); give it to `watch` by --reports-token-file, to `status "
                "--fleet` by --token-file",
                code="token_refused",
            ) from error
        if error.status == 404:
            raise BrokenError(
                f"there is nothing at {url}",
                means="the server takes no reports, or they are taken elsewhere",
                do="start it with --reports, or give --feed its address",
                code="not_a_feed",
            ) from error
        raise
    except TransientError as error:
        raise TransientError(
            error.cause,
            means="what machines reported is not known",
            do="see to the server or the network, then run the command again; `watch` "
            "tries again by itself",
            code=error.code,
        ) from error
    except (ValueError, RecursionError) as error:
        raise BrokenError(
            f"{url} does not answer like a report server: {error}",
            do="check the address",
            code="not_a_feed",
        ) from error
    if not isinstance(document, dict) or document.get("schema") != 1:
        raise BrokenError(
            f"{url} does not answer like a report server",
            do="check the address",
            code="not_a_feed",
        )
    return document
