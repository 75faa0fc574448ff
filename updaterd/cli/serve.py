# SPDX-License-Identifier: Apache-2.0
"""`updaterd serve`: the feed server."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from updaterd.clocks import wall_clock

if TYPE_CHECKING:
    from updaterd.server.options import Options

_DAY_S = 86400
_EXPLAINED = """\
Serves the feed at /v1/events, the repository's files at /repo/, /healthz, /readyz
and /metrics; /openapi.json describes them. Announcing needs a token:
`updaterd token create --scope ...`.

The default keeps its events in one SQLite file and is one process; several
processes share --log redis://HOST:PORT/DB. SIGTERM closes the streams evenly
within --grace and exits.

examples:
  updaterd serve --repo /srv/updates/public --state /var/lib/updaterd-serve
  updaterd serve --state DIR --log redis://10.0.0.5:6379/0 --host 0.0.0.0
  updaterd serve --state DIR --only reports --reports open --reports-store @FILE
"""


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is not a port: 0 to 65535")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not more than zero")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _limit(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative; 0 means no limit")
    return value


def _network(text: str) -> str:
    from ipaddress import ip_network

    try:
        ip_network(text.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{error}; write 10.0.0.5 or 10.0.0.0/8"
        ) from None
    return text


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    # no server's library is loaded for it: these are numbers
    from updaterd.server.options import Options

    unset = Options(state=Path())
    parser.epilog = _EXPLAINED
    parser.add_argument(
        "--repo",
        type=Path,
        metavar="DIR",
        help="repository to serve at /repo/; only its metadata, targets and blobs "
        "are served. For a workspace, give its public folder",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="newest root of a repository that is served elsewhere: announced metadata "
        "must be signed by its keys, as with --repo",
    )
    parser.add_argument(
        "--state",
        type=Path,
        required=True,
        metavar="DIR",
        help="directory for tokens and the embedded event log; it is created if it "
        "is missing",
    )
    parser.add_argument("--host", default=unset.host, help="address to listen on")
    parser.add_argument(
        "--port",
        type=_port,
        default=unset.port,
        help=f"0 takes a free one (default: {unset.port})",
    )
    parser.add_argument(
        "--address-file",
        type=Path,
        metavar="FILE",
        help="written with the server's URL once it listens",
    )
    parser.add_argument(
        "--log",
        default=unset.log_url,
        metavar="URL",
        help="address of the event log (default: one of its own in --state); "
        "@FILE reads the URL from a file, where a password in it is not seen by all",
    )
    parser.add_argument(
        "--log-format",
        choices=("auto", "journal", "human", "json"),
        default="auto",
        help="format of the log on stderr (default: the journal under systemd, "
        "lines on a terminal, JSON elsewhere)",
    )
    parser.add_argument(
        "--keep-events",
        type=_count,
        default=unset.retention.count,
        metavar="N",
        help=f"number of events to keep (default: {unset.retention.count})",
    )
    parser.add_argument(
        "--keep-days",
        type=_positive,
        default=unset.retention.age_s / _DAY_S,
        metavar="DAYS",
        help=f"days to keep events (default: {unset.retention.age_s / _DAY_S:g})",
    )
    _streams(parser.add_argument_group("streams"), unset)
    _access(parser.add_argument_group("access"), unset)
    _reports(parser.add_argument_group("reports"), unset)


def _streams(group: argparse._ArgumentGroup, unset: "Options") -> None:
    group.add_argument(
        "--sink",
        choices=("auto", "fast", "asgi"),
        default=unset.sink,
        help="how streams are written: fast (own code, needs least CPU) or asgi "
        "(uvicorn)",
    )
    group.add_argument(
        "--heartbeat",
        type=_positive,
        default=unset.heartbeat_s,
        metavar="S",
        help=f"seconds between two signs of life (default: {unset.heartbeat_s:g})",
    )
    group.add_argument(
        "--lifetime",
        type=_positive,
        default=unset.lifetime_s,
        metavar="S",
        help="a stream is closed after this many seconds, plus or minus a fifth, and "
        f"its client reconnects (default: {unset.lifetime_s:g})",
    )
    group.add_argument(
        "--grace",
        type=_positive,
        default=unset.grace_s,
        metavar="S",
        help="longest time for closing streams on SIGTERM "
        f"(default: {unset.grace_s:g})",
    )
    group.add_argument(
        "--rate",
        type=_positive,
        default=unset.rate,
        metavar="N",
        help="new streams admitted a second; the others get 503 and Retry-After "
        f"(default: {unset.rate:g})",
    )
    group.add_argument(
        "--expected-streams",
        type=_limit,
        default=unset.expected_streams,
        metavar="N",
        help="size of the fleet, if known: widens the retry times from the start",
    )
    group.add_argument(
        "--max-streams",
        type=_count,
        default=unset.max_streams,
        metavar="N",
        help="most streams of this process; its limit of open files also bounds them "
        f"(default: {unset.max_streams})",
    )
    group.add_argument(
        "--max-per-address",
        type=_limit,
        default=unset.max_per_address,
        metavar="N",
        help="streams of one IPv4 address or IPv6 /64; 0: no limit "
        f"(default: {unset.max_per_address})",
    )
    group.add_argument(
        "--max-per-token",
        type=_limit,
        default=unset.max_per_token,
        metavar="N",
        help="streams of one read token; 0: no limit",
    )


def _reports(group: argparse._ArgumentGroup, unset: "Options") -> None:
    group.add_argument(
        "--reports",
        choices=("off", "open", "token"),
        default=None,
        help="take reports of machines at /v1/reports: from anybody (open), or from "
        "who has a token with the scope report:PRODUCT (default: off; token with "
        "--only reports)",
    )
    group.add_argument(
        "--reports-store",
        default=unset.reports.url,
        metavar="URL",
        help="where they are kept: postgresql://USER@HOST/DATABASE (default: a file of "
        "its own in --state); @FILE reads the URL from a file",
    )
    group.add_argument(
        "--only",
        choices=("reports",),
        help="take reports in this process and serve nothing else: beside a feed with "
        "many streams, behind the same proxy",
    )
    group.add_argument(
        "--reports-rate",
        type=_positive,
        default=unset.reports.rate,
        metavar="N",
        help="requests a second of one address or token; the others are told when to "
        f"come again (default: {unset.reports.rate:g})",
    )
    group.add_argument(
        "--keep-reports",
        type=_positive,
        default=unset.reports.keep_s / _DAY_S,
        metavar="DAYS",
        help="how long each report is kept; counts by the hour stay for 400 days "
        f"(default: {unset.reports.keep_s / _DAY_S:g})",
    )


def _access(group: argparse._ArgumentGroup, unset: "Options") -> None:
    group.add_argument(
        "--private",
        action="store_true",
        help="streams and files need a token with the scope read",
    )
    group.add_argument(
        "--metrics",
        choices=("token", "open", "off"),
        default=unset.metrics,
        help="who may read /metrics: a token with the scope operate (default)",
    )
    group.add_argument(
        "--trusted-proxy",
        action="append",
        type=_network,
        default=[],
        metavar="NETWORK",
        help="proxies whose X-Forwarded-For header is trusted: an address or CIDR; "
        "may be repeated",
    )
    group.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="origins of web pages that may subscribe (CORS); may be repeated, * for "
        "all",
    )
    group.add_argument(
        "--head-timeout",
        type=_positive,
        default=unset.deadlines.head_s,
        metavar="S",
        help="seconds within which the headers of a request must arrive "
        f"(default: {unset.deadlines.head_s:g})",
    )
    group.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="certificate chain"
    )
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes.

    Raises:
        BrokenError: the extra is not installed, or address or log cannot be used.
    """
    import time

    from updaterd.cli import EXIT_USAGE
    from updaterd.errors import BrokenError

    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        print("updaterd serve: --tls-cert and --tls-key go together", file=sys.stderr)
        return EXIT_USAGE
    try:
        from updaterd.server import process
    except ModuleNotFoundError as error:
        raise BrokenError(
            f"the feed server needs a package that is missing: {error.name}",
            do="pip install 'updaterd[server]'",
            code="extra_missing",
        ) from error
    _configure_logs(arguments.log_format)
    options = read_options(arguments)
    # the edge of the program: this is where clocks come from
    process.serve(options, clock=time.monotonic, now=wall_clock)
    return 0


def read_options(arguments: argparse.Namespace) -> "Options":
    """Return what the command line says, as the server's options.

    Raises:
        BrokenError: the file with the event log's URL cannot be read.
    """
    from updaterd.server.log.contract import Retention
    from updaterd.server.options import Deadlines, Options, ReportOptions

    alone = arguments.only == "reports"
    return Options(
        state=arguments.state.absolute(),
        repository=arguments.repo and arguments.repo.absolute(),
        root=arguments.root and arguments.root.absolute(),
        log_url=_url(arguments.log, "event log"),
        host=arguments.host,
        port=arguments.port,
        address_file=arguments.address_file,
        sink=arguments.sink,
        heartbeat_s=arguments.heartbeat,
        lifetime_s=arguments.lifetime,
        grace_s=arguments.grace,
        rate=arguments.rate,
        expected_streams=arguments.expected_streams,
        max_streams=arguments.max_streams,
        max_per_address=arguments.max_per_address,
        max_per_token=arguments.max_per_token,
        private=arguments.private,
        deadlines=Deadlines(head_s=arguments.head_timeout),
        metrics=arguments.metrics,
        trusted_proxies=tuple(arguments.trusted_proxy),
        origins=tuple(arguments.allow_origin),
        reports=ReportOptions(
            take=arguments.reports or ("token" if alone else "off"),
            url=_url(arguments.reports_store, "store of reports"),
            alone=alone,
            rate=arguments.reports_rate,
            keep_s=arguments.keep_reports * _DAY_S,
        ),
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        retention=Retention(
            count=arguments.keep_events, age_s=arguments.keep_days * _DAY_S
        ),
    )


def _url(text: str, subject: str) -> str:
    """Return the URL of a store, from a file when `text` is `@FILE`.

    Raises:
        BrokenError: the file cannot be read.
    """
    from updaterd.errors import BrokenError

    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenError(
            f"cannot read the URL of the {subject}: {error}",
            do="write it to the file, readable for the server's user",
            code="log_url",
        ) from error


def _configure_logs(destination: str) -> None:
    import os

    from updaterd import log

    stream = cast("log.Stream", destination)
    if destination == "auto" and not (
        sys.stderr.isatty() or "JOURNAL_STREAM" in os.environ
    ):
        stream = "json"  # a container, a file: someone will search it
    log.configure(stream)
