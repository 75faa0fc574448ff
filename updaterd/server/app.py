"""The HTTP surface of the feed server (Starlette)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from updaterd.errors import MalformedError, RejectedError, UpdaterError
from updaterd.log import get
from updaterd.server import publish, sink_asgi
from updaterd.server.access import STREAM_HEADERS, cors, refusal_headers
from updaterd.server.addresses import Proxies
from updaterd.server.admission import Bucket
from updaterd.server.files import RepositoryFiles
from updaterd.server.log import EventLog, write_topic
from updaterd.server.metrics import CONTENT_TYPE, Metrics
from updaterd.server.options import Options
from updaterd.server.peer import peer_of
from updaterd.server.request import EVENTS_PATH, read_bearer, read_request
from updaterd.server.streams import Refusal, Streams
from updaterd.server.tokens import Token, Tokens

_KEY_LIMIT = 200
_BODY_DEADLINE_S = 30.0
_READY_DEADLINE_S = 2.0
_SHOWN_DEADLINE_S = 1.0

log = get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the surface is put in front of.

    Attributes:
        proxies: whose X-Forwarded-For is believed.
        clock: seconds on a steady clock.
    """

    options: Options
    log: EventLog
    streams: Streams
    tokens: Tokens
    metrics: Metrics
    watch: publish.MetadataWatch
    proxies: Proxies
    clock: Callable[[], float]


def problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    """Return an error as JSON: a stable code, and a sentence for people."""
    return JSONResponse(
        {"error": code, "message": message},
        status,
        {"cache-control": "no-store", **(headers or {})},
    )


class Events:
    """`/v1/events`: GET is a stream, POST announces, OPTIONS is for browsers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = scope["method"]
        origin = next((v for k, v in scope["headers"] if k == b"origin"), b"")
        allow = cors(self._parts.options, origin.decode("latin-1"))
        if method == "GET":
            await self._stream(scope, receive, send, allow)
            return
        if method == "POST":
            response = await self._publish(Request(scope, receive))
            if response.status_code != HTTPStatus.CREATED:
                response.headers["connection"] = "close"  # its body may be on the way
        elif method == "OPTIONS":
            response = Response(
                status_code=204,
                headers={
                    "access-control-allow-methods": "GET",
                    "access-control-allow-headers": "last-event-id, authorization",
                    "access-control-max-age": "86400",
                },
            )
        elif method == "HEAD":
            response = Response(
                headers={
                    "content-type": "text/event-stream",
                    "cache-control": "no-cache",
                }
            )
        else:
            response = problem(
                405,
                "method_not_allowed",
                "GET or POST",
                {"allow": "GET, HEAD, OPTIONS, POST"},
            )
        response.headers.update(allow)
        await response(scope, receive, send)

    async def _stream(
        self, scope: Scope, receive: Receive, send: Send, allow: dict[str, str]
    ) -> None:
        parts = self._parts
        peer = scope["client"][0] if scope["client"] else ""
        try:
            request = read_request(
                scope["query_string"], scope["headers"], peer, parts.proxies
            )
            answer = parts.streams.knock(request)
        except MalformedError as error:
            response = problem(400, error.code, str(error), allow)
            await response(scope, receive, send)
            return
        if isinstance(answer, Refusal):
            headers = {**allow, **refusal_headers(answer), "connection": "close"}
            response = problem(answer.status, answer.code, answer.code, headers)
            if only_retry := answer.as_stream:
                headers = {**allow, **STREAM_HEADERS, "connection": "close"}
                response = Response(only_retry, headers=headers)
            await response(scope, receive, send)
            return
        extra = tuple((k.encode(), v.encode("latin-1")) for k, v in allow.items())
        head = [*((k.encode(), v.encode()) for k, v in STREAM_HEADERS.items()), *extra]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        stream = sink_asgi.AsgiStream(parts.streams, request, answer, peer_of(scope))
        await stream.run(request.cursor, receive, send)

    async def _publish(self, request: Request) -> Response:
        secret = read_bearer(request.headers.get("authorization", "").encode("latin-1"))
        try:
            token = self._parts.tokens.find(secret) if secret else None
            if token is None:
                return problem(
                    401,
                    "token_required",
                    "send a token that `updaterd token create` made",
                    {"www-authenticate": "Bearer"},
                )
            response = await self._append(request, token)
        except (TimeoutError, ClientDisconnect):
            return problem(408, "body_timeout", "the body did not come in time")
        except RejectedError as error:
            status = {"idempotency_key_reused": 422, "metadata_older": 409}
            response = problem(status.get(error.code, 400), error.code, str(error))
        except UpdaterError as error:
            response = problem(503, error.code, str(error), {"retry-after": "2"})
        outcome = {201: "accepted", 503: "log_down"}
        self._parts.metrics.published(outcome.get(response.status_code, "refused"))
        return response

    async def _append(self, request: Request, token: Token) -> Response:
        bucket = self._bucket(token)
        if not bucket.take(self._parts.clock()):
            return problem(
                429, "too_many_announcements", "slow down", {"retry-after": "1"}
            )
        key = request.headers.get("idempotency-key", "")
        if not 0 < len(key) <= _KEY_LIMIT or not key.isascii() or not key.isprintable():
            return problem(
                400,
                "idempotency_key_required",
                f"send Idempotency-Key: up to {_KEY_LIMIT} printable characters, "
                "the same when you try again",
            )
        event = publish.read_announcement(await self._body(request))
        if not token.may_publish(event.topic.product, event.topic.channel):
            return problem(
                403,
                "scope_missing",
                f"the token may not publish {write_topic(event.topic)}",
            )
        self._parts.watch.check(event)
        appended = await self._parts.log.append(event, f"{token.id}:{key}")
        with suppress(TimeoutError):  # stored it is; this is only for good order
            async with asyncio.timeout(_SHOWN_DEADLINE_S):
                await self._parts.streams.hub.reached(appended.position)
        said = {
            "id": appended.id,
            "kind": event.name,
            "product": event.topic.product,
            "channel": event.topic.channel,
            "publisher": token.id,
        }
        if appended.fresh:
            log.info("announced", **said)
        else:
            log.info("announced_before", **said)
        # a repetition gets the answer that the first one got, or should have
        replayed = {} if appended.fresh else {"idempotent-replayed": "true"}
        return JSONResponse({"id": appended.id}, 201, replayed)

    def _bucket(self, token: Token) -> Bucket:
        rate = self._parts.options.publish_rate
        return self._buckets.setdefault(
            token.id, Bucket(rate, 5 * rate, 5 * rate, self._parts.clock())
        )

    @staticmethod
    async def _body(request: Request) -> bytes:
        """Read the body, no longer than allowed and no slower.

        Raises:
            MalformedError: too large.
        """
        body = bytearray()
        async with asyncio.timeout(_BODY_DEADLINE_S):
            async for part in request.stream():
                body += part
                if len(body) > publish.BODY_LIMIT:
                    raise MalformedError(
                        f"the announcement is larger than {publish.BODY_LIMIT} bytes",
                        code="too_large",
                    )
        return bytes(body)


class Probes:
    """`/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def healthz(self, _: Request) -> Response:
        """Tell that the event loop turns."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self, _: Request) -> Response:
        """Tell whether streams and announcements would be taken now."""
        parts = self._parts
        try:
            async with asyncio.timeout(_READY_DEADLINE_S):
                await parts.log.bounds()
        except (UpdaterError, TimeoutError) as error:
            parts.metrics.log_up(up=False)
            return problem(503, "log_unreachable", str(error) or "timeout")
        parts.metrics.log_up(up=True)
        if parts.streams.draining or not parts.streams.ready:
            return problem(503, "not_ready", "starting or stopping")
        return Response("ready\n", media_type="text/plain")

    async def metrics(self, request: Request) -> Response:
        """Answer Prometheus, when it may ask."""
        parts = self._parts
        if parts.options.metrics == "token":
            header = request.headers.get("authorization", "").encode("latin-1")
            token = parts.tokens.find(read_bearer(header))
            if token is None or not token.may("operate"):
                return problem(
                    401 if token is None else 403,
                    "operate_scope_required",
                    "send a token with the scope operate",
                    {"www-authenticate": "Bearer"},
                )
        return Response(parts.metrics.render(), headers={"content-type": CONTENT_TYPE})


async def _on_http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    return problem(status, f"http_{status}", str(error), dict(headers or {}))


def make_app(parts: Parts) -> ASGIApp:
    """Return the application: feed, files, health and metrics."""
    probes = Probes(parts)
    routes: list[Route | Mount] = [
        Route(EVENTS_PATH, Events(parts)),
        Route("/healthz", probes.healthz),
        Route("/readyz", probes.readyz),
    ]
    if parts.options.metrics != "off":
        routes.append(Route("/metrics", probes.metrics))
    if parts.options.repository is not None:
        files: ASGIApp = RepositoryFiles(directory=parts.options.repository)
        if parts.options.private:
            files = _Private(files, parts.tokens)
        routes.append(Mount("/repo", files))
    return Starlette(routes=routes, exception_handlers={HTTPException: _on_http})


class _Private:
    """Lets through who has a token with the scope `read`."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        header = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
        token = self._tokens.find(read_bearer(header))
        if token is None or not token.may("read"):
            response = problem(
                401,
                "token_required",
                "send a token with the scope read",
                {"www-authenticate": "Bearer"},
            )
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)
