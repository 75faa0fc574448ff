# SPDX-License-Identifier: Apache-2.0
"""`/healthz`, `/readyz` and `/metrics`: what load balancers and monitoring ask."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from updaterd.errors import UpdaterError
from updaterd.server.http.answers import problem
from updaterd.server.http.parts import Parts
from updaterd.server.streams.request import read_bearer

_READY_DEADLINE_S = 2.0


class Probes:
    """Answers the three probes."""

    def __init__(self, parts: Parts) -> None:
        self._log = parts.log
        self._streams = parts.streams
        self._metrics = parts.metrics
        self._tokens = parts.tokens if parts.options.metrics == "token" else None

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
        accept = ",".join(request.headers.getlist("accept"))
        content_type, render = self._metrics.format_for(accept)
        headers = {"content-type": content_type, "vary": "accept"}
        return Response(render(), headers=headers)
