# SPDX-License-Identifier: Apache-2.0
"""`POST /v1/events`: who may announce, how fast, and what comes back.

The answer is safe to lose: the same `Idempotency-Key` gets the same id again.
"""

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from updaterd.core.announcement import MAX_BODY
from updaterd.core.identity import IssuerDownError, RefusedIdentityError
from updaterd.errors import MalformedError, RejectedError, UpdaterError
from updaterd.log import get
from updaterd.server.http import publish
from updaterd.server.http.answers import (
    identity_refused,
    problem,
    problem_of,
    unavailable,
)
from updaterd.server.http.bodies import GoneError, whole
from updaterd.server.http.parts import Parts
from updaterd.server.log.contract import Appended, Event, write_topic
from updaterd.server.scopes import Holder
from updaterd.server.streams.admission import Bucket
from updaterd.server.streams.request import read_bearer

KEY_LIMIT = 200
"""Longest `Idempotency-Key`."""

_SHOWN_DEADLINE_S = 1.0
STATUS = {
    "idempotency_key_reused": 422,
    "metadata_older": 409,
    "scope_missing": 403,
    "too_large": 413,
}
"""Status of a refused announcement by its code; 400 for all others."""


log = get()


class Announcements:
    """Answers `POST /v1/events`."""

    def __init__(self, parts: Parts) -> None:
        self._log = parts.log
        self._hub = parts.streams.hub
        self._bearers = parts.bearers
        self._watch = parts.watch
        self._metrics = parts.metrics
        self._rate = parts.options.publish_rate
        self._clock = parts.clock
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, request: Request) -> Response:
        """Answer one announcement."""
        response = await self._answer(request)
        outcome = {201: "accepted", 503: "log_down"}
        self._metrics.published(outcome.get(response.status_code, "refused"))
        return response

    async def _answer(self, request: Request) -> Response:
        """Answer whoever it is: what strangers do is not logged, they can all day."""
        secret = read_bearer(request.headers.get("authorization", "").encode("latin-1"))
        try:
            holders = await self._bearers.find(secret)
        except (RefusedIdentityError, IssuerDownError) as error:
            return identity_refused(error)
        except UpdaterError as error:  # the tokens cannot be read, and our log has it
            return unavailable(error.code)
        if not holders:
            return problem(
                401,
                "token_required",
                headers={"www-authenticate": "Bearer"},
                remedy="send a token that `updaterd token create` made",
            )
        return await self._answer_to(request, holders)

    async def _answer_to(
        self, request: Request, holders: tuple[Holder, ...]
    ) -> Response:
        """Answer somebody who is known."""
        publisher = holders[0].id
        if not self._bucket(publisher).take(self._clock()):
            return problem(429, "too_many_announcements", headers={"retry-after": "1"})
        try:
            return await self._take(request, holders)
        except (TimeoutError, GoneError):
            return problem(408, "body_timeout")
        except RejectedError as error:
            _log_refusal(error, publisher)
            return problem_of(STATUS.get(error.code, 400), error)
        except UpdaterError as error:
            _log_refusal(error, publisher)
            return problem_of(503, error, {"retry-after": "2"})

    async def _take(self, request: Request, holders: tuple[Holder, ...]) -> Response:
        """Store one announcement.

        Raises:
            RejectedError: it is none, or may not be made, or makes no sense.
            LogDownError: it may or may not be stored.
        """
        key = _read_key(request)
        event = publish.read_announcement(
            await whole(
                dict(request.scope["headers"]),
                request.receive,
                subject="the announcement",
                most=MAX_BODY,
            )
        )
        product, channel = event.topic.product, event.topic.channel
        able = [holder for holder in holders if holder.may_publish(product, channel)]
        if not able:
            raise RejectedError(
                f"the token may not publish {write_topic(event.topic)}",
                do="use another, or make one with the scope "
                f"publish:{write_topic(event.topic)}",
                code="scope_missing",
            )
        token = able[0]
        appended = await self._append(event, f"{token.id}:{key}")
        if self._hub.last < appended.position:
            with suppress(TimeoutError):  # stored it is; this is only for good order
                async with asyncio.timeout(_SHOWN_DEADLINE_S):
                    await self._hub.reached(appended.position)
        fields = {
            "id": appended.id,
            "kind": event.name,
            "product": event.topic.product,
            "channel": event.topic.channel,
            "publisher": token.id,
        }
        streams = self._hub.audience(event.topic)
        if appended.fresh:
            log.info("announced", streams=streams, **fields)
        else:
            log.info("announced_before", **fields)
        # a repetition gets the id that the first one got, or should have
        replayed = {} if appended.fresh else {"idempotent-replayed": "true"}
        return JSONResponse({"id": appended.id, "streams": streams}, 201, replayed)

    async def _append(self, event: Event, key: str) -> Appended:
        try:
            self._watch.check(event)
        except publish.StaleMetadataError:
            # newer metadata may have come between an announcement and its repetition
            if before := await self._log.find(event, key):
                return before
            raise
        return await self._log.append(event, key)

    def _bucket(self, token_id: str) -> Bucket:
        return self._buckets.setdefault(
            token_id, Bucket(self._rate, 5 * self._rate, 5 * self._rate, self._clock())
        )


def _log_refusal(error: UpdaterError, publisher: str) -> None:
    """Log why an announcement was refused."""
    log.warning(
        "announcement_refused", code=error.code, error=error.cause, publisher=publisher
    )


def _read_key(request: Request) -> str:
    """Return the idempotency key.

    Raises:
        MalformedError: there is none, or no usable one.
    """
    key = request.headers.get("idempotency-key", "")
    if not 0 < len(key) <= KEY_LIMIT or not key.isascii() or not key.isprintable():
        raise MalformedError(
            "there is no usable Idempotency-Key",
            do=f"send one of up to {KEY_LIMIT} printable characters, "
            "the same when you try again",
            code="idempotency_key_required",
        )
    return key
