# SPDX-License-Identifier: Apache-2.0
"""The parts of the server that the HTTP application uses."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from updaterd.server.client_address import Proxies
from updaterd.server.http.bearers import Bearers
from updaterd.server.http.publish import MetadataWatch
from updaterd.server.http.reports import ReportParts
from updaterd.server.log.contract import EventLog
from updaterd.server.metrics import Metrics
from updaterd.server.options import Options
from updaterd.server.streams.streams import Streams
from updaterd.server.tokens import Tokens

OfHost = Callable[[], Awaitable[CollectorRegistry]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one process that answers need.

    Attributes:
        proxies: whose X-Forwarded-For is believed.
        clock: seconds on a steady clock.
        now: seconds since 1970.
        reports: those of reports, where they are taken.
        of_host: gets the metrics of all workers; None where there is one process.
    """

    options: Options
    log: EventLog
    streams: Streams
    tokens: Tokens
    bearers: Bearers
    metrics: Metrics
    watch: MetadataWatch
    proxies: Proxies
    clock: Callable[[], float]
    now: Callable[[], float]
    reports: ReportParts | None = None
    of_host: OfHost | None = None
