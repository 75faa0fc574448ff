# SPDX-License-Identifier: Apache-2.0
"""`POST /v1/reports`, and `GET /v1/fleet`: what machines say, and what it comes to."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from updaterd.clocks import random_draw
from updaterd.core import codes
from updaterd.core.report import CHANNEL_PATH, FLEET_PATH, MAX_BODY, RELEASE_PATH
from updaterd.errors import RejectedError, TransientError, UpdaterError
from updaterd.server.client_address import Proxies
from updaterd.server.http.answers import problem, unavailable
from updaterd.server.http.bodies import GoneError, whole
from updaterd.server.metrics import Metrics
from updaterd.server.options import Options
from updaterd.server.reports.contract import (
    EDGES_S,
    Histogram,
    ReleaseCounts,
    ReportStore,
)
from updaterd.server.reports.ingest import FullError, Ingest
from updaterd.server.scopes import Token
from updaterd.server.streams.admission import Bucket
from updaterd.server.streams.request import read_bearer
from updaterd.server.tokens import Tokens

REPORTS_PATH = "/v1/reports"
_MOST_SENDERS = 20_000
_SHARES = 8  # of what may wait; a sender has one, for what is on its way
MOST_RELEASES = 100
_AWAY_S = 10.0  # how long those who are sent away stay, at least
STATUS = {"too_large": 413, "scope_missing": 403}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportParts:
    """The parts of one process that answers about reports need.

    Attributes:
        proxies: whose X-Forwarded-For is believed.
        clock: seconds on a steady clock.
        now: seconds since 1970.
    """

    ingest: Ingest
    options: Options
    tokens: Tokens
    metrics: Metrics
    proxies: Proxies
    clock: Callable[[], float]
    now: Callable[[], float]


class Reports:
    """Answers `POST /v1/reports`: 202 once they are kept."""

    def __init__(self, parts: ReportParts) -> None:
        self._ingest = parts.ingest
        self._options = parts.options.reports
        self._tokens = parts.tokens
        self._metrics = parts.metrics
        self._proxies = parts.proxies
        self._clock = parts.clock
        self._coming: dict[str, int] = {}  # bytes of bodies on their way
        self._senders: OrderedDict[str, Bucket] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            response = problem(405, "method_not_allowed", "POST", {"allow": "POST"})
        else:
            response = await self._answer(scope, receive)
        outcome = {202: "kept", 503: "away", 429: "away"}
        self._metrics.reports(outcome.get(response.status_code, "refused"))
        self._metrics.reports_waiting(self._ingest.waiting_bytes)
        if response.status_code != 202:
            response.headers["connection"] = "close"  # its body may be on the way
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        headers = dict(scope["headers"])
        try:
            token = self._token(headers)
            sender = self._sender(scope, token)
            if refusal := self._refuse(sender, token):
                return refusal
            with self._room(sender, _announced(headers)):
                body = await whole(headers, receive, subject="the body", most=MAX_BODY)
            may = _anything if self._options.take == "open" else _covered(token)
            ages = headers.get(b"reports-age", b"").decode("latin-1")
            await self._ingest.take(body, ages, may)
        except (TimeoutError, GoneError):
            return problem(408, "body_timeout", "the body did not come in time")
        except RejectedError as error:
            return problem(STATUS.get(error.code, 400), error.code, str(error))
        except TransientError as error:
            # why is for our log, and not for whoever asks
            return problem(503, error.code, "come again", _come_again())
        except UpdaterError as error:
            return unavailable(error.code)
        return Response(status_code=202)

    @contextmanager
    def _room(self, sender: str, size: int) -> Iterator[None]:
        """Hold room for a body, within the share of its sender.

        Or a few connections that announce much and send nothing keep out everybody.

        Raises:
            FullError: there is none, for anybody or for this one.
        """
        coming = self._coming.get(sender, 0) + size
        if coming > max(MAX_BODY, self._options.waiting_bytes // _SHARES):
            raise FullError("too much is on its way from this sender")
        with self._ingest.room(size):
            self._coming[sender] = coming
            try:
                yield
            finally:
                self._coming[sender] -= size
                if not self._coming[sender]:
                    del self._coming[sender]

    def _refuse(self, sender: str, token: Token | None) -> Response | None:
        if token is None and self._options.take == "token":
            return problem(
                401,
                "token_required",
                "send a token with the scope report:PRODUCT",
                {"www-authenticate": "Bearer"},
            )
        if not self._admit(sender):
            return problem(429, "too_many_reports", "slow down", _come_again())
        return None

    def _token(self, headers: Mapping[bytes, bytes]) -> Token | None:
        secret = read_bearer(headers.get(b"authorization", b""))
        return self._tokens.find(secret) if secret else None

    def _sender(self, scope: Scope, token: Token | None) -> str:
        """Return who sends: a token, or an address where there is none."""
        if token is not None:
            return f"token {token.id}"
        peer = scope["client"][0] if scope["client"] else ""
        return self._proxies.client_of(peer, scope["headers"])

    def _admit(self, sender: str) -> bool:
        """Tell whether this sender is within its rate."""
        now, rate = self._clock(), self._options.rate
        bucket = self._senders.get(sender)
        if bucket is None:
            if len(self._senders) >= _MOST_SENDERS:
                self._senders.popitem(last=False)
            bucket = self._senders[sender] = Bucket(rate, 4 * rate, 4 * rate, now)
        else:
            self._senders.move_to_end(sender)
        return bucket.take(now)


def _announced(headers: Mapping[bytes, bytes]) -> int:
    """Return how many bytes a body may have: as announced, within the limit."""
    length = headers.get(b"content-length", b"")
    return min(int(length), MAX_BODY) if length.isdigit() else MAX_BODY


def _anything(_: object) -> bool:
    return True


def _covered(token: Token | None) -> Callable[[Any], bool]:
    return lambda report: token is not None and token.may_report(report.product)


def _come_again() -> dict[str, str]:
    """Return when those who are sent away should come: spread, not all at once."""
    return {"retry-after": str(int(_AWAY_S * (1 + 5 * random_draw())))}


class Fleet:
    """Answers `GET /v1/fleet...` for tokens with the scope `fleet:read`."""

    def __init__(self, ingest: Ingest, tokens: Tokens) -> None:
        self._ingest = ingest
        self._tokens = tokens

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route(FLEET_PATH, self.fleet),
            Route(CHANNEL_PATH, self.channel),
            Route(RELEASE_PATH, self.release),
        ]

    async def fleet(self, request: Request) -> Response:
        """Answer with every channel that machines follow, and how many do."""
        if refusal := self._refuse(request):
            return refusal
        answer = await self._ingest.read(lambda store: store.populations())
        return _answer({
            "channels": [
                {"product": channel.product, "channel": channel.channel,
                 "machines": channel.machines}
                for channel in answer
            ]
        })  # fmt: skip

    async def channel(self, request: Request) -> Response:
        """Answer with the releases of a channel, newest first."""
        if refusal := self._refuse(request):
            return refusal
        try:
            limit = int(request.query_params.get("limit", "10"))
            before = request.query_params.get("before")
            before_seq = None if before is None else int(before)
        except ValueError:
            limit, before_seq = 0, None
        if not 1 <= limit <= MOST_RELEASES or (before_seq or 0) >> 62:
            return problem(
                400,
                "bad_query",
                f"limit is 1 to {MOST_RELEASES}, before is a number",
            )
        product, channel = _subject(request)
        answer = await self._ingest.read(
            lambda store: store.releases(
                product, channel, before_seq=before_seq, limit=limit
            )
        )
        return _answer({
            "product": product,
            "channel": channel,
            "releases": [describe(counts) for counts in answer],
        })

    async def release(self, request: Request) -> Response:
        """Answer with one release: counts, histograms, and reports by the hour."""
        if refusal := self._refuse(request):
            return refusal
        product, channel = _subject(request)
        version = request.path_params["version"]

        def read(store: ReportStore) -> dict[str, Any] | None:
            counts = store.release(product, channel, version)
            if counts is None:
                return None
            hours = store.hours(product, channel, version)
            return {
                "product": product,
                "channel": channel,
                **describe(counts),
                "histograms": histograms(counts),
                "hours": [
                    {"hour_ms": h.hour_ms, "outcome": h.outcome, "reports": h.count}
                    for h in hours
                ],
            }

        answer = await self._ingest.read(read)
        if answer is None:
            return problem(404, "no_reports", "nobody has reported about this release")
        return _answer(answer)

    def _refuse(self, request: Request) -> Response | None:
        header = request.headers.get("authorization", "").encode("latin-1")
        token = self._tokens.find(read_bearer(header))
        if token is not None and token.may("fleet:read"):
            return None
        return problem(
            401 if token is None else 403,
            "token_required" if token is None else "scope_missing",
            "send a token with the scope fleet:read",
            {"www-authenticate": "Bearer"},
        )


def _subject(request: Request) -> tuple[str, str]:
    return request.path_params["product"], request.path_params["channel"]


def _answer(document: dict[str, Any]) -> Response:
    return JSONResponse(
        {"schema": 1, **document}, headers={"cache-control": "no-store"}
    )


def describe(counts: ReleaseCounts) -> dict[str, Any]:
    """Return what is known of a release, as the API has it."""
    return {
        "version": counts.version,
        "seq": counts.seq,
        "running": counts.running,
        "platforms": counts.platforms,
        "tags": counts.tags,
        "machines": counts.outcomes,
        "codes": [
            {"outcome": outcome, "code": code, "machines": n, "fault": fault(code)}
            for (outcome, code), n in sorted(counts.codes.items())
        ],
        "reports": counts.reports,
        "bytes_fetched": counts.bytes_fetched,
        "bytes_full": counts.bytes_full,
        "lost": counts.lost,
        "latency": {
            part: {
                "machines": histogram.count,
                "p50_s": histogram.quantile(0.5),
                "p95_s": histogram.quantile(0.95),
                "p99_s": histogram.quantile(0.99),
            }
            for part, histogram in _by_part(counts).items()
        },
    }


def fault(code: str) -> str:
    """Return whose fault a code is; "unknown" for one of a newer machine."""
    row = codes.find(code)
    return str(row.kind) if row else "unknown"


def histograms(counts: ReleaseCounts) -> list[dict[str, Any]]:
    """Return the histograms of a release, by trigger and part, cumulative."""
    return [
        {
            "trigger": trigger,
            "part": part,
            "edges_s": list(EDGES_S),
            "counts": histogram.counts,
        }
        for (trigger, part), histogram in sorted(counts.clock.items())
    ]


def _by_part(counts: ReleaseCounts) -> dict[str, Histogram]:
    """Return the histograms of what was pushed: others have no announcement."""
    parts: dict[str, Histogram] = {}
    for (_, part), histogram in sorted(counts.clock.items()):
        whole = parts.setdefault(part, Histogram())
        whole.counts = [
            a + b for a, b in zip(whole.counts, histogram.counts, strict=True)
        ]
    return parts
