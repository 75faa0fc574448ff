# SPDX-License-Identifier: Apache-2.0
"""`/healthz`, `/readyz` and `/metrics`: what load balancers and monitoring ask."""

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from updaterd.core.identity import IssuerDownError, RefusedIdentityError
from updaterd.errors import UpdaterError
from updaterd.server.http.answers import identity_refused, problem
from updaterd.server.http.parts import OfHost, Parts
from updaterd.server.http.reports import ReportParts
from updaterd.server.metrics import Metrics
from updaterd.server.reports.ingest import Ingest
from updaterd.server.streams.request import read_bearer

_READY_DEADLINE_S = 2.0
_NEWEST = 3  # releases of each channel that are in /metrics: labels cost


class Probes:
    """Answers the three probes."""

    def __init__(self, parts: Parts) -> None:
        self._log = parts.log
        self._streams = parts.streams
        self._metrics = parts.metrics
        self._bearers = parts.bearers if parts.options.metrics == "token" else None
        self._ingest = parts.reports.ingest if parts.reports else None
        self._of_host = parts.of_host

    async def healthz(self, _: Request) -> Response:
        """Tell that the event loop turns."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self, _: Request) -> Response:
        """Tell whether streams and announcements would be accepted now."""
        try:
            async with asyncio.timeout(_READY_DEADLINE_S):
                await self._log.bounds()
        except (UpdaterError, TimeoutError):
            self._metrics.log_up(up=False)
            # why, and where it is, is for our log and not for whoever asks
            return problem(503, "log_unreachable")
        self._metrics.log_up(up=True)
        if self._streams.draining or not self._streams.ready:
            return problem(503, "not_ready")
        return Response("ready\n", media_type="text/plain")

    async def metrics(self, request: Request) -> Response:
        """Answer Prometheus; by default, it needs a token."""
        if self._bearers is not None:
            header = request.headers.get("authorization", "").encode("latin-1")
            try:
                holders = await self._bearers.find(read_bearer(header))
            except (RefusedIdentityError, IssuerDownError) as error:
                return identity_refused(error)
            if not any(holder.may("operate") for holder in holders):
                return problem(
                    403 if holders else 401,
                    "operate_scope_required",
                    "send a token with the scope operate",
                    {"www-authenticate": "Bearer"},
                )
        return await _metrics(request, self._metrics, self._ingest, self._of_host)


class ReportProbes:
    """The same of a process that takes reports and nothing else."""

    def __init__(self, parts: ReportParts) -> None:
        self._ingest = parts.ingest
        self._metrics = parts.metrics
        self._options = parts.options
        self._tokens = parts.tokens if parts.options.metrics == "token" else None

    async def healthz(self, _: Request) -> Response:
        """Tell that the event loop turns."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self, _: Request) -> Response:
        """Tell whether reports would be kept now."""
        try:
            async with asyncio.timeout(_READY_DEADLINE_S):
                await self._ingest.read(lambda store: store.populations())
        except (UpdaterError, TimeoutError):
            return problem(503, "reports_down", "the store does not answer")
        return Response("ready\n", media_type="text/plain")

    async def metrics(self, request: Request) -> Response:
        """Answer Prometheus; by default, it needs a token."""
        if self._options.metrics == "off":
            return problem(404, "not_found")
        if self._tokens is not None:
            header = request.headers.get("authorization", "").encode("latin-1")
            token = self._tokens.find(read_bearer(header))
            if token is None or not token.may("operate"):
                return problem(
                    401 if token is None else 403,
                    "operate_scope_required",
                    "send a token with the scope operate",
                    {"www-authenticate": "Bearer"},
                )
        return await _metrics(request, self._metrics, self._ingest)


async def _metrics(
    request: Request,
    metrics: Metrics,
    ingest: Ingest | None,
    of_host: OfHost | None = None,
) -> Response:
    if ingest is not None:
        with suppress(UpdaterError):  # the others count all the same
            metrics.releases = await ingest.read(lambda store: [*store.newest(_NEWEST)])
    accept = ",".join(request.headers.getlist("accept"))
    registry = None if of_host is None else await of_host()
    content_type, render = metrics.format_for(accept, registry)
    headers = {"content-type": content_type, "vary": "accept"}
    return Response(render(), headers=headers)
