# SPDX-License-Identifier: Apache-2.0
"""Telling the feed: after the upload, never before, and with the signed metadata.

The bearer token announces; it signs nothing. A token comes from a file or the
environment, never from an argument, where every user of the machine could read it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from updaterd.core.announcement import Announcement, pack
from updaterd.core.channel import ChannelPointer
from updaterd.core.text import printable
from updaterd.errors import BrokenError, RejectedError, TransientError
from updaterd.net import Fetcher
from updaterd.release.keys.credentials import credential

CREDENTIAL = "updaterd.token"
_LONGEST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What the feed answered.

    Attributes:
        id: of the event.
        url: of the feed.
        streams: open there, at the server that answered, for this product and
            channel, or for anything where none is announced; None where a feed does
            not say.
    """

    id: str
    url: str
    streams: int | None = None

    def __str__(self) -> str:
        text = f"announced to {self.url} as event {self.id}"
        return text if self.streams is None else f"{text}, open streams: {self.streams}"


def find_token(file: Path | None, environ: Mapping[str, str]) -> str:
    """Return the publishing token: of the file, the environment, the unit, or "".

    Raises:
        BrokenError: its file cannot be read, or is empty.
    """
    if file is not None:
        try:
            token = file.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise BrokenError(
                f"cannot read the token file: {error}",
                means="nothing was published: the feed could not be told about it",
                do="check --token-file, or token_file in release.toml",
                code="token",
            ) from error
        return token or read_token(None, {})
    variable = environ.get("UPDATERD_FEED_TOKEN", "").strip()
    return variable or (credential(environ, CREDENTIAL) or b"").decode(
        "ascii", "replace"
    )


def read_token(file: Path | None, environ: Mapping[str, str]) -> str:
    """Return the publishing token; see `find_token`.

    Raises:
        BrokenError: there is none, or its file cannot be read.
    """
    token = find_token(file, environ)
    if not token:
        raise BrokenError(
            "no publishing token for the feed",
            means="nothing was published: the feed could not be told about it",
            do="make one with `updaterd token create`, then use --token-file, set "
            "UPDATERD_FEED_TOKEN or give the unit LoadCredential=updaterd.token; "
            "in a CI, --oidc needs none; or use --no-announce, and machines will poll",
            code="token",
        )
    return token


def body_of(
    pointer: ChannelPointer | None, pushed: tuple[bytes, bytes] | None
) -> bytes:
    """Return the announcement of a channel's newest release, or of metadata alone."""
    timestamp, snapshot = map(pack, pushed) if pushed else (None, None)
    if pointer is None or not pointer.releases:
        return Announcement(timestamp=timestamp, snapshot=snapshot).encode()
    newest = pointer.releases[0]
    return Announcement(
        product=pointer.product,
        channel=pointer.channel,
        version=newest.version,
        seq=newest.seq,
        urgency=newest.urgency,
        spread_s=newest.rollout.window_s,
        timestamp=timestamp,
        snapshot=snapshot,
    ).encode()


def read_problem(raw: bytes) -> tuple[str, str]:
    """Return what an answer says is wrong, and what to do, for a person.

    Of `application/problem+json` (RFC 9457) that is its `detail`, or `title`, and our
    `remedy`; of anything else, such as a proxy's page, its beginning and nothing.
    """
    try:
        answer = json.loads(raw)
        parts = [answer.get(name) for name in ("detail", "title", "remedy")]
    except (ValueError, AttributeError, RecursionError):
        parts = []
    detail, title, remedy = (
        printable(part, longest=_LONGEST) if isinstance(part, str) else ""
        for part in parts or ("", "", "")
    )
    text = raw[:_LONGEST].decode("utf-8", "replace").strip()
    return detail or title or printable(text, longest=_LONGEST), remedy


class OlderError(RejectedError):
    """The feed already knows newer metadata than the announcement carries."""

    code = "metadata_older"


def announce(fetcher: Fetcher, feed: str, token: str, body: bytes) -> Announced:
    """Post an announcement; the feed takes the same one only once.

    Args:
        fetcher: asks the network.
        feed: address of its events, `.../v1/events`.
        token: bearer token with the scope `publish:PRODUCT/CHANNEL`.
        body: see `body_of`; its hash is the `Idempotency-Key`.

    Raises:
        TransientError: unreachable, or it asks to come back later.
        OlderError: it knows newer metadata.
        RejectedError: it refuses; its reason is in the message.
        BrokenError: it does not know the token, or the answer makes no sense.
    """
    key = hashlib.sha256(body).hexdigest()
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    status, raw = fetcher.post(feed, body, headers=headers)
    reply, remedy = read_problem(raw)
    if status in {401, 403}:
        raise BrokenError(
            f"the feed refuses the token ({status}): {reply}",
            do=remedy or "make a token with the scope publish:PRODUCT/CHANNEL",
            code="token_refused",
        )
    if status == 409:
        raise OlderError(f"the feed knows newer metadata: {reply}", do=remedy)
    if status == 429 or status >= 500:
        raise TransientError(
            f"the feed answered {status}: {reply}",
            do=remedy or "look at the server's log",
            code=f"http_{status}",
        )
    if status not in {200, 201, 202}:
        raise RejectedError(
            f"the feed refuses the announcement ({status}): {reply}",
            do=remedy or "check its address, which ends in /v1/events",
            code="announcement_refused",
        )
    try:
        answer = json.loads(raw)
        event_id, streams = str(answer["id"]), answer.get("streams")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenError(
            f"{feed} does not answer like a feed: {reply}",
            do="check its address, which ends in /v1/events",
            code="not_a_feed",
        ) from error
    return Announced(
        id=event_id, url=feed, streams=streams if isinstance(streams, int) else None
    )
