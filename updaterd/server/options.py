# SPDX-License-Identifier: Apache-2.0
"""How a feed server is set up: one frozen struct, units in the names.

What is not set has its default here, and nowhere else: `updaterd serve` reads them.
"""

from dataclasses import dataclass, field
from pathlib import Path

from updaterd.server.log.contract import Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long each phase of a connection may last, seconds (`port/phases`)."""

    handshake_s: float = 10.0
    head_s: float = 15.0
    body_s: float = 30.0
    reading_s: float = 60.0
    idle_s: float = 20.0
    closing_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Of what machines report.

    Attributes:
        take: off, open (anybody may report) or token (with the scope report:PRODUCT).
        url: where they are kept; empty for the embedded store.
        alone: nothing else is served by this process.
        rate: requests a second of one address or token.
        keep_s: how long each report is kept; counts stay for longer.
        waiting_bytes: bodies that wait to be kept; what comes then gets 503.
    """

    take: str = "off"
    url: str = ""
    alone: bool = False
    rate: float = 50.0
    keep_s: float = 90 * 86400.0
    waiting_bytes: int = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOptions:
    """Of the web console.

    Attributes:
        on: it is served, below `/console`.
        audit: `audit.jsonl`, to be shown; None: it is not here.
    """

    on: bool = False
    audit: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `updaterd serve`.

    Attributes:
        repository: served under `/repo/`; None when a CDN does it.
        root: the repository's root, to judge pushed metadata by where it is served
            elsewhere.
        state: tokens, and the log when it is embedded.
        workers: processes that have streams.
        log_url: an address of a kind in `server/log/registry.py`.
        sink: how streams are written: auto, fast or asgi.
        heartbeat_s: between two comment lines on a quiet stream.
        lifetime_s: after which a stream is rotated, give or take a fifth.
        grace_s: time for closing streams after SIGTERM.
        rate: new streams a second that are admitted, by all workers.
        expected_streams: size of the fleet, as far as known; widens `retry:`.
        max_streams: in all workers.
        max_per_address: streams of one IPv4 address or IPv6 /64; 0: no limit.
        max_per_token: streams of one read token; 0: no limit.
        max_downloads: files of the repository being read at once.
        publish_rate: announcements a second for each token.
        deadlines: time for each phase of a connection.
        queue_bytes: waiting for one reader; it is dropped when there is more for
            seconds, or four times as much at all.
        trusted_proxies: addresses and networks whose X-Forwarded-For is believed.
        origins: allowed by CORS; `*` for all.
        private: streams and files need a token with `read`.
        metrics: who may read `/metrics`: token (operate), open or off.
        tls_cert: certificate chain; None for plain HTTP.
        tls_key: its key.
        reports: what machines report, and who may.
        console: pages of what they reported.
    """

    state: Path
    workers: int = 1
    repository: Path | None = None
    root: Path | None = None
    log_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    address_file: Path | None = None
    sink: str = "auto"
    heartbeat_s: float = 15.0
    lifetime_s: float = 1800.0
    grace_s: float = 20.0
    rate: float = 2000.0
    expected_streams: int = 0
    max_streams: int = 50_000
    max_per_address: int = 1000
    max_per_token: int = 0
    max_downloads: int = 1000
    publish_rate: float = 20.0
    deadlines: Deadlines = field(default_factory=Deadlines)
    queue_bytes: int = 256 << 10
    ring_bytes: int = 16 << 20
    trusted_proxies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    private: bool = False
    metrics: str = "token"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    retention: Retention = field(default_factory=Retention)
    reports: ReportOptions = field(default_factory=ReportOptions)
    console: ConsoleOptions = field(default_factory=ConsoleOptions)

    @property
    def burst(self) -> int:
        """How many new streams may come at once before the rate counts."""
        return max(1, int(self.rate / 2))
