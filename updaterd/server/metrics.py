# SPDX-License-Identifier: Apache-2.0
"""Metrics for `/metrics`: the text format of Prometheus, or OpenMetrics."""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics

from updaterd import __version__
from updaterd.core.accept import quality
from updaterd.server.log.contract import Record
from updaterd.server.reports.contract import EDGES_S, ReleaseCounts

PLAIN, OPEN = "text/plain", "application/openmetrics-text"
_PLAIN_VERSION, _OPEN_VERSION = "0.0.4", "1.0.0"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


def _write_open(registry: CollectorRegistry) -> bytes:
    text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]  # it has no types
    return text


class _Releases:
    """What machines reported about the newest releases, as Prometheus has it."""

    def __init__(self, metrics: "Metrics") -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield machines by outcome, and from announcement to installed."""
        machines = GaugeMetricFamily(
            "updaterd_release_machines",
            "Machines by how a release ended there last",
            labels=["product", "channel", "version", "outcome"],
        )
        latency = HistogramMetricFamily(
            "updaterd_publish_to_installed_seconds",
            "From the announcement of a release to its end on a machine",
            labels=["product", "channel", "version", "trigger", "part"],
        )
        for product, channel, counts in self._metrics.releases:
            labels = [product, channel, counts.version]
            for outcome, count in counts.outcomes.items():
                machines.add_metric([*labels, outcome], count)
            for (trigger, part), histogram in sorted(counts.clock.items()):
                passed = list(accumulate(histogram.counts))
                edges = [*map(str, EDGES_S), "+Inf"]
                latency.add_metric(
                    [*labels, trigger, part.removesuffix("_s")],
                    buckets=list(zip(edges, passed, strict=True)),
                    sum_value=None,
                )
        yield machines
        yield latency


class Metrics:
    """Counters of this process.

    Args:
        now: seconds since 1970, as the log's ids have it.
    """

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self.registry = CollectorRegistry()
        r = self.registry
        # half of the text, and nobody asks for it
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        ProcessCollector(registry=r)  # memory, CPU, open files and their limit
        Info("updaterd", "This server", registry=r).info({"version": __version__})
        self._most = Gauge(
            "updaterd_streams_most", "Streams this process would carry", registry=r
        )
        self._count = 0
        streams = Gauge("updaterd_streams", "Open streams", registry=r)
        # asked for when somebody looks: it changes thousands of times a second
        streams.set_function(lambda: self._count)
        self._events = Counter(
            "updaterd_events", "Events from the log", ["event"], registry=r
        )
        self._published = Counter(
            "updaterd_published", "Announcements by outcome", ["outcome"], registry=r
        )
        self._deliveries = Counter(
            "updaterd_deliveries", "Events written to streams", registry=r
        )
        self._opened = Counter(
            "updaterd_streams_opened", "Streams by greeting", ["kind"], registry=r
        )
        self._kinds: dict[str, Counter] = {}
        self._refused = Counter(
            "updaterd_streams_refused", "Requests refused", ["reason"], registry=r
        )
        self._dropped = Counter(
            "updaterd_streams_ended", "Streams ended here", ["reason"], registry=r
        )
        self._first = Histogram(
            "updaterd_publish_to_first_write_seconds",
            "From an event's id to the first stream",
            unit="seconds",
            buckets=_BUCKETS,
            registry=r,
        )
        self._lag = Gauge(
            "updaterd_log_lag_seconds",
            "Age of the newest event when it arrived here from the log",
            unit="seconds",
            registry=r,
        )
        self._log_up = Gauge("updaterd_log_up", "Whether the log answers", registry=r)

        self.releases: Iterable[tuple[str, str, ReleaseCounts]] = ()
        r.register(_Releases(self))
        self._reports = Counter(
            "updaterd_reports", "Requests with reports by outcome", ["outcome"],
            registry=r,
        )  # fmt: skip
        self._reports_kept = Counter(
            "updaterd_reports_kept", "Reports that were kept, each once", registry=r
        )
        self._reports_repeated = Counter(
            "updaterd_reports_repeated", "Reports that had come before", registry=r
        )
        self._reports_waiting = Gauge(
            "updaterd_reports_waiting_bytes", "Reports that wait to be kept", registry=r
        )

    def reports(self, outcome: str) -> None:
        """A request with reports was taken, refused, or sent away."""
        self._reports.labels(outcome).inc()

    def count_reports(self, fresh: int, repeated: int) -> None:
        """Reports were kept, or had been before."""
        self._reports_kept.inc(fresh)
        self._reports_repeated.inc(repeated)

    def reports_waiting(self, size: int) -> None:
        """Set how many bytes wait to be kept."""
        self._reports_waiting.set(size)

    def arrived(self, record: Record) -> None:
        """See `hub.Observer`."""
        self._events.labels(record.event.name).inc()
        self._lag.set(max(0.0, self._now() - record.position.ms / 1000))

    def first_write(self, record: Record) -> None:
        """See `hub.Observer`."""
        self._first.observe(max(0.0, self._now() - record.position.ms / 1000))

    def delivered(self, count: int) -> None:
        """See `hub.Observer`."""
        self._deliveries.inc(count)

    def most_streams(self, count: int) -> None:
        """Set the limit of streams, by options or open files."""
        self._most.set(count)

    def streams(self, count: int) -> None:
        """Set the number of open streams."""
        self._count = count

    def opened(self, kind: str) -> None:
        """A stream joined."""
        opened = self._kinds.get(kind)
        if opened is None:
            opened = self._kinds[kind] = self._opened.labels(kind)
        opened.inc()

    def refused(self, code: str) -> None:
        """A request for a stream was turned away."""
        self._refused.labels(code).inc()

    def dropped(self, reason: str) -> None:
        """A stream was ended by the server."""
        self._dropped.labels(reason).inc()

    def published(self, outcome: str) -> None:
        """An announcement was accepted, repeated or refused."""
        self._published.labels(outcome).inc()

    def log_up(self, up: bool) -> None:
        """The log answered, or did not."""
        self._log_up.set(up)

    def format_for(
        self, accept: str, registry: CollectorRegistry | None = None
    ) -> tuple[str, Callable[[], bytes]]:
        """Return the content type that a scraper likes best, and what makes the text.

        Prometheus' own text, unless OpenMetrics is asked for by its name and at least
        as welcome: whoever takes anything, or nothing of the two, gets what curl and
        every scraper can read.

        Args:
            accept: the header, "" for none.
            registry: whose metrics; None for those of this process.
        """
        shown = registry or self.registry
        plain = quality(accept, PLAIN, _PLAIN_VERSION)
        weight = quality(accept, OPEN, _OPEN_VERSION)
        if OPEN in accept.lower() and weight > 0 and weight >= plain:
            return (
                openmetrics.CONTENT_TYPE_LATEST,
                lambda: _write_open(shown),
            )
        return CONTENT_TYPE_PLAIN_0_0_4, lambda: generate_latest(shown)
