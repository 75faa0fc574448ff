# SPDX-License-Identifier: Apache-2.0
"""The console's pages, and what each of them reads."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from updaterd.core.report import MACHINE
from updaterd.errors import UpdaterError
from updaterd.log.repeats import Repeats
from updaterd.server.client_address import Proxies
from updaterd.server.console import audit, charts, figures, plans
from updaterd.server.console.door import LOGIN, ROOT, Door, go
from updaterd.server.console.live import Live
from updaterd.server.console.offers import Offers
from updaterd.server.console.rendering import HEADERS, assets, page
from updaterd.server.console.sessions import Sessions
from updaterd.server.reports.contract import ReleaseCounts, ReportStore
from updaterd.server.reports.ingest import Ingest
from updaterd.server.tokens import Tokens

_MOST_CHANNELS = 200
_RELEASES = 10
_SAMPLES = 5
_RECENT_MS = 3_600_000
_SHOWN_MS = 7 * 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleParts:
    """The parts of one process that the console needs.

    Attributes:
        ingest: reads the store of reports.
        tokens: those of the server.
        proxies: whose X-Forwarded-For and X-Forwarded-Proto are believed.
        now: seconds since 1970.
        clock: seconds on a steady clock.
        is_tls: this process speaks TLS itself.
        repository: whose files are shown; None: served elsewhere.
        audit: `audit.jsonl`; None: not shown here.
        streams: tells how many streams of the feed are open; None: no feed here.
    """

    ingest: Ingest
    tokens: Tokens
    proxies: Proxies
    now: Callable[[], float]
    clock: Callable[[], float]
    is_tls: bool
    repository: Path | None = None
    audit: Path | None = None
    streams: Callable[[], int] | None = None


class Console:
    """Answers for everything below `/console`.

    Args:
        parts: what it reads.
    """

    def __init__(self, parts: ConsoleParts) -> None:
        self._parts = parts
        self._ingest = parts.ingest
        sessions = Sessions(parts.tokens, now=parts.now, clock=parts.clock)
        self._door = Door(sessions, proxies=parts.proxies, is_tls=parts.is_tls)
        self._offers = Offers(parts.repository)
        self._live = Live(lambda: (parts.ingest.commits, self._streams()))
        self._repeats = Repeats()
        self._app = self._routed()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)

    def close(self) -> None:
        """End what is open: the server stops."""
        self._live.close()

    def _routed(self) -> ASGIApp:
        guard = self._door.guard
        channel = f"{ROOT}/products/{{product}}/channels/{{channel}}"
        app = Starlette(
            routes=[
                Route(ROOT, _home),
                Route(LOGIN, self._door.login, methods=["GET", "POST"]),
                Route(f"{ROOT}/logout", self._door.logout, methods=["POST"]),
                Route(f"{ROOT}/static/{{name}}", self._static),
                Route(f"{ROOT}/", guard(self._fleet)),
                Route(channel, guard(self._channel)),
                Route(f"{channel}/releases/{{version}}", guard(self._release)),
                Route(f"{ROOT}/machines", guard(self._find_machine)),
                Route(f"{ROOT}/machines/{{machine}}", guard(self._machine)),
                Route(f"{ROOT}/audit", guard(self._audit)),
                Route(f"{ROOT}/live", self._stream),
            ],
            exception_handlers={
                HTTPException: self._on_http,
                UpdaterError: self._on_ours,
                OSError: self._on_ours,
                Exception: _on_defect,  # logged by who called us
            },
        )
        app.router.redirect_slashes = False
        return app

    async def _static(self, request: Request) -> Response:
        asset = assets().get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404)
        data, kind, _ = asset
        headers = HEADERS | {"cache-control": "public, max-age=31536000, immutable"}
        return Response(data, headers=headers, media_type=kind)

    async def _stream(self, request: Request) -> Response:
        if self._door.holder(request) is None:
            raise HTTPException(401)
        return self._live.answer(lambda: self._door.holder(request) is not None)

    # ---- pages

    def _streams(self) -> int | None:
        return None if self._parts.streams is None else self._parts.streams()

    def _now_ms(self) -> int:
        return int(self._parts.now() * 1000)

    async def _fleet(self, request: Request) -> Response:
        word = request.query_params.get("product", "").strip()[:64]
        since_ms = self._now_ms() - _RECENT_MS

        def read(store: ReportStore) -> tuple[int, list[figures.ChannelRow], int]:
            channels = store.overview(since_ms=since_ms, limit=_MOST_CHANNELS)
            shown = [now for now in channels if word in now.product]
            offers = self._offers.pointers([
                (now.product, now.channel) for now in shown
            ])
            rows = [
                figures.row_of(now, offer.whole if offer is not None else None)
                for now, offer in zip(shown, offers, strict=True)
            ]
            return len(channels), rows, sum(now.machines for now in channels)

        several, rows, machines = await self._ingest.read(read)
        order = list(figures.STATES)
        rows.sort(
            key=lambda row: (order.index(row.state), row.now.product, row.now.channel)
        )
        return page(
            "fleet.html", is_in=True, rows=rows, word=word,
            streams=self._streams(), is_cut=several >= _MOST_CHANNELS,
            machines=machines, states=figures.STATES,
        )  # fmt: skip

    async def _channel(self, request: Request) -> Response:
        product, channel = _subject(request)
        before = _whole(request.query_params.get("before"))
        until_ms = self._now_ms()
        since_ms = until_ms - _SHOWN_MS

        def read(store: ReportStore) -> Response:
            releases = store.releases(
                product, channel, before_seq=before, limit=_RELEASES + 1
            )
            if not releases and before is None:
                raise HTTPException(404)
            shown = releases[:_RELEASES]
            seq = min((r.seq for r in shown[: charts.MOST_LINES]), default=0)
            steps = (
                store.rollouts(
                    product,
                    channel,
                    since_ms=since_ms,
                    seq=seq,
                    step_ms=charts.STEP_MS,
                )
                if before is None
                else ()
            )
            newest = shown[0] if shown else None
            samples = (
                store.samples(product, channel, newest.version, limit=_SAMPLES)
                if newest
                else {}
            )
            clock = figures.by_part(newest) if newest else {}
            part = _shown_part(clock)
            followers = sum(
                followed.machines
                for followed in store.populations()
                if (followed.product, followed.channel) == (product, channel)
            )
            pointer = self._offers.pointer(product, channel)
            known = {counts.version: counts for counts in shown}

            def find(version: str) -> ReleaseCounts | None:
                return known.get(version) or store.release(product, channel, version)

            return page(
                "channel.html", is_in=True, product=product, channel=channel,
                machines=followers, releases=shown, newest=newest,
                failures=figures.failures(newest, samples) if newest else (),
                clock=figures.parts(newest) if newest else (),
                bars=charts.bars(clock[part]) if part else (),
                part=figures.PARTS.get(part, ""),
                adoption=charts.adoption(steps, since_ms=since_ms, until_ms=until_ms),
                pointer=pointer,
                guarded=plans.guarded(
                    pointer.whole if pointer else None, find,
                    machines=followers, now=self._parts.now(),
                ),
                is_served=self._parts.repository is not None,
                before=shown[-1].seq if len(releases) > _RELEASES else None,
                is_first=before is None,
            )  # fmt: skip

        return await self._ingest.read(read)

    async def _release(self, request: Request) -> Response:
        product, channel = _subject(request)
        version = request.path_params["version"]

        def read(store: ReportStore) -> Response:
            counts = store.release(product, channel, version)
            if counts is None:
                raise HTTPException(404)
            samples = store.samples(product, channel, version, limit=_SAMPLES)
            clock = figures.by_part(counts)
            part = _shown_part(clock)
            return page(
                "release.html", is_in=True, product=product, channel=channel,
                counts=counts, failures=figures.failures(counts, samples),
                clock=figures.parts(counts), hours=store.hours(
                    product, channel, version)[:48],
                bars=charts.bars(clock[part]) if part else (),
                part=figures.PARTS.get(part, ""),
                published=self._offers.published(product, version),
            )  # fmt: skip

        return await self._ingest.read(read)

    async def _find_machine(self, request: Request) -> Response:
        ident = request.query_params.get("id", "").strip().lower()[:80]
        if MACHINE.fullmatch(ident):
            return go(f"{ROOT}/machines/{ident}")
        return page("find.html", is_in=True, ident=ident, status=400 if ident else 200)

    async def _machine(self, request: Request) -> Response:
        ident = request.path_params["machine"]
        if not MACHINE.fullmatch(ident):
            raise HTTPException(404)
        states = await self._ingest.read(lambda store: store.machine(ident))
        if not states:
            return page("find.html", is_in=True, ident=ident, status=404)
        return page("machine.html", is_in=True, ident=ident, states=states)

    async def _audit(self, request: Request) -> Response:
        path, lines, error = self._parts.audit, audit.AuditPage((), None), ""
        if path is not None:
            until = _whole(request.query_params.get("until"))
            try:
                lines = await asyncio.to_thread(audit.read_page, path, until)
            except OSError as reason:
                error = reason.strerror or "it cannot be read"
        return page("audit.html", is_in=True, path=path, page=lines, error=error)

    # ---- what goes wrong

    async def _on_http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        titles = {404: "Nothing is here", 401: "Sign in first"}
        texts = {404: "No machine has reported about this, or the address is wrong."}
        return page(
            "problem.html", status=error.status_code, headers=error.headers,
            is_in=self._door.holder(request) is not None,
            title=titles.get(error.status_code, HTTPStatus(error.status_code).phrase),
            text=texts.get(error.status_code, ""),
        )  # fmt: skip

    async def _on_ours(self, _: Request, error: Exception) -> Response:
        code = error.code if isinstance(error, UpdaterError) else "unavailable"
        self._repeats.error("console_failed", alike=code, error=str(error))
        return page(
            "problem.html", status=503, headers={"retry-after": "5"}, is_in=False,
            title="Not now", text=f"The server cannot read this now ({code}); its log "
            "says why. Try again later.",
        )  # fmt: skip


async def _on_defect(_: Request, error: Exception) -> Response:
    del error
    return page(
        "problem.html", status=500, is_in=False, title="This is our fault",
        text="The page could not be made; the server's log says why.",
    )  # fmt: skip


async def _home(_: Request) -> Response:
    return go(f"{ROOT}/")


def _subject(request: Request) -> tuple[str, str]:
    return request.path_params["product"], request.path_params["channel"]


def _whole(text: str | None) -> int | None:
    """Return a number of the address's query; None where there is none.

    Raises:
        HTTPException: something else stands there.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise HTTPException(400)
    return int(text)


def _shown_part(clock: Mapping[str, object]) -> str:
    """Return the part whose histogram is shown: the whole, where it is known."""
    return next((part for part in ("total_s", "ended_s") if part in clock), "")
