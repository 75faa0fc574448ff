# SPDX-License-Identifier: Apache-2.0
"""The HTTP surface of the feed server (Starlette)."""

import errno
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from updaterd.core.caching import FRESH
from updaterd.core.enrolment import ENROLL_PATH
from updaterd.errors import MalformedError, UpdaterError
from updaterd.log.repeats import Repeats
from updaterd.server.http.access import STREAM_HEADERS, cors, refusal_headers
from updaterd.server.http.announce import Announcements
from updaterd.server.http.answers import Problems, problem, problem_of, unavailable
from updaterd.server.http.enroll import Enroll
from updaterd.server.http.files import RepositoryFiles
from updaterd.server.http.openapi.document import PATH, document
from updaterd.server.http.parts import Parts
from updaterd.server.http.probes import Probes, ReportProbes
from updaterd.server.http.reports import REPORTS_PATH, Fleet, ReportParts, Reports
from updaterd.server.streams import sink_asgi
from updaterd.server.streams.peer import peer_of
from updaterd.server.streams.request import (
    EVENTS_PATH,
    StreamRequest,
    read_bearer,
    read_request,
)
from updaterd.server.streams.stream import Refusal
from updaterd.server.tokens import Tokens


class Events:
    """`/v1/events`: GET is a stream, POST announces, OPTIONS is for browsers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._announcements = Announcements(parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = scope["method"]
        origin = next((v for k, v in scope["headers"] if k == b"origin"), b"")
        allow = cors(self._parts.options, origin.decode("latin-1"))
        if method == "GET":
            await self._stream(scope, receive, send, allow)
            return
        if method == "POST":
            response = await self._announcements(Request(scope, receive))
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
            response = self._head(scope)
        else:
            response = problem(
                405, "method_not_allowed", headers={"allow": "GET, HEAD, OPTIONS, POST"}
            )
        response.headers.update(allow)
        await response(scope, receive, send)

    def _request(self, scope: Scope) -> StreamRequest:
        """Read a request for a stream.

        Raises:
            MalformedError: see `read_request`.
        """
        peer = scope["client"][0] if scope["client"] else ""
        return read_request(
            scope["query_string"], scope["headers"], peer, self._parts.proxies
        )

    def _head(self, scope: Scope) -> Response:
        """Return what a GET would be answered with, without its place in the queue."""
        try:
            refusal = self._parts.streams.check(self._request(scope))
        except MalformedError as error:
            return problem_of(400, error)
        if isinstance(refusal, Refusal):
            headers = refusal_headers(refusal)
            return problem(refusal.status, refusal.code, headers=headers)
        return Response(headers=STREAM_HEADERS)

    async def _stream(
        self, scope: Scope, receive: Receive, send: Send, allow: dict[str, str]
    ) -> None:
        parts = self._parts
        try:
            request = self._request(scope)
            answer = parts.streams.knock(request)
        except MalformedError as error:
            response = problem_of(400, error, allow)
            await response(scope, receive, send)
            return
        if isinstance(answer, Refusal):
            headers = {**allow, **refusal_headers(answer), "connection": "close"}
            response = problem(answer.status, answer.code, headers=headers)
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


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.setdefault("allow", "GET, HEAD")  # of files; a route has its own
    # `Problems` gives it its form
    return Response(status_code=error.status_code, headers=headers)


class _Faults:
    """Answers for the server's own faults: no detail, one log line a kind and minute.

    Any stranger can make it happen again and again.
    """

    def __init__(self) -> None:
        self._repeats = Repeats()

    async def on_ours(self, _: Request, error: Exception) -> Response:
        code = error.code if isinstance(error, UpdaterError) else "unavailable"
        if isinstance(error, OSError):
            self._repeats.error(
                "request_failed",
                alike=errno.errorcode.get(error.errno or 0, ""),
                error=error.strerror or str(error),
                means="files or connections are at their limit, or the disk refuses",
            )
        return unavailable(code)


def make_app(parts: Parts, console: ASGIApp | None = None) -> ASGIApp:
    """Return the application: feed, files, health and metrics, and the console."""
    options = parts.options
    probes = Probes(parts)
    routes: list[Route | Mount] = [
        Route("/healthz", probes.healthz),
        Route("/readyz", probes.readyz),
        Route(PATH, _describe),
    ]
    if options.metrics != "off":
        routes.append(Route("/metrics", probes.metrics))
    if options.repository is not None:
        files: ASGIApp = RepositoryFiles(
            directory=options.repository,
            private=options.private,
            most=options.max_downloads,
            proxies=parts.proxies,
        )
        if options.private:
            files = _Private(files, parts.tokens)
        routes.append(Mount("/repo", files))
    if parts.reports is not None:
        routes += Fleet(parts.reports.ingest, parts.tokens).routes()
    # a path is what it says: a redirect would lead to whatever Host claims
    events, faults = Events(parts), _Faults()
    rest = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _on_http,
            UpdaterError: faults.on_ours,
            OSError: faults.on_ours,
        },
    )
    rest.router.redirect_slashes = False

    # the way through the router would be a tenth of what an announcement costs
    direct: dict[str, ASGIApp] = {EVENTS_PATH: events, ENROLL_PATH: _enroll(parts)}
    if parts.reports is not None:
        direct[REPORTS_PATH] = Reports(parts.reports)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await direct.get(scope["path"], rest)(scope, receive, send)

    return _beside(console, Problems(app))


def _beside(console: ASGIApp | None, api: ASGIApp) -> ASGIApp:
    """Return an application whose pages, if it has any, have errors for people."""
    if console is None:
        return api

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        is_page = f"{scope['path']}/".startswith("/console/")
        await (console if is_page else api)(scope, receive, send)

    return app


def make_reports_app(parts: ReportParts, console: ASGIApp | None = None) -> ASGIApp:
    """Return the application of a process that takes reports and serves no feed."""
    reports, faults = Reports(parts), _Faults()
    metrics = ReportProbes(parts)
    rest = Starlette(
        routes=[
            Route("/healthz", metrics.healthz),
            Route("/readyz", metrics.readyz),
            Route("/metrics", metrics.metrics),
            *Fleet(parts.ingest, parts.tokens).routes(),
        ],
        exception_handlers={
            HTTPException: _on_http,
            UpdaterError: faults.on_ours,
            OSError: faults.on_ours,
        },
    )
    rest.router.redirect_slashes = False

    direct: dict[str, ASGIApp] = {REPORTS_PATH: reports, ENROLL_PATH: _enroll(parts)}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await direct.get(scope["path"], rest)(scope, receive, send)

    return _beside(console, Problems(app))


def _enroll(parts: Parts | ReportParts) -> Enroll:
    return Enroll(parts.tokens, proxies=parts.proxies, now=parts.now, clock=parts.clock)


async def _describe(_: Request) -> Response:
    """Answer with what the answers look like: for everybody, it is in every release."""
    headers = {"access-control-allow-origin": "*", "cache-control": FRESH}
    return Response(document(), headers=headers, media_type="application/json")


class _Private:
    """Serves only requests with a token of the scope `read`."""

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
