# SPDX-License-Identifier: Apache-2.0
"""What `updaterd serve` can be told of streams, access and reports."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from updaterd.server.options import Options

DAY_S = 86400


def port(text: str) -> int:
    """Return a port.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is not a port: 0 to 65535")
    return value


def positive(text: str) -> float:
    """Return a number above zero.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not more than zero")
    return value


def count(text: str) -> int:
    """Return a number of things, one at least.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def workers(text: str) -> int:
    """Return a number of processes; `auto` is one on each processor.

    Raises:
        ArgumentTypeError: it is none.
    """
    if text == "auto":
        import os

        return len(os.sched_getaffinity(0))
    return count(text)


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


def stream_arguments(group: argparse._ArgumentGroup, unset: "Options") -> None:
    """Declare the arguments about streams."""
    group.add_argument(
        "--sink",
        choices=("auto", "fast", "asgi"),
        default=unset.sink,
        help="how streams are written: fast (own code, needs least CPU) or asgi "
        "(through uvicorn)",
    )
    group.add_argument(
        "--heartbeat",
        type=positive,
        default=unset.heartbeat_s,
        metavar="S",
        help=f"seconds between two signs of life (default: {unset.heartbeat_s:g})",
    )
    group.add_argument(
        "--lifetime",
        type=positive,
        default=unset.lifetime_s,
        metavar="S",
        help="a stream is closed after this many seconds, plus or minus a fifth, and "
        f"its client reconnects (default: {unset.lifetime_s:g})",
    )
    group.add_argument(
        "--grace",
        type=positive,
        default=unset.grace_s,
        metavar="S",
        help="longest time for closing streams on SIGTERM "
        f"(default: {unset.grace_s:g})",
    )
    group.add_argument(
        "--rate",
        type=positive,
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
        type=count,
        default=unset.max_streams,
        metavar="N",
        help="most streams of all workers; limits of open files also bound them "
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


def report_arguments(group: argparse._ArgumentGroup, unset: "Options") -> None:
    """Declare the arguments about reports."""
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
        type=positive,
        default=unset.reports.rate,
        metavar="N",
        help="requests a second of one address or token; the others are told when to "
        f"come again (default: {unset.reports.rate:g})",
    )
    group.add_argument(
        "--keep-reports",
        type=positive,
        default=unset.reports.keep_s / DAY_S,
        metavar="DAYS",
        help="how long each report is kept; counts by the hour stay for 400 days "
        f"(default: {unset.reports.keep_s / DAY_S:g})",
    )
    group.add_argument(
        "--console",
        action="store_true",
        help="serve pages of what machines reported at /console, for tokens with the "
        "scope fleet:read; needs --reports",
    )
    group.add_argument(
        "--audit",
        type=Path,
        metavar="FILE",
        help="audit.jsonl of a repository's workspace, for the console to show",
    )


def access_arguments(group: argparse._ArgumentGroup, unset: "Options") -> None:
    """Declare the arguments about who may do what."""
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
        type=positive,
        default=unset.deadlines.head_s,
        metavar="S",
        help="seconds within which the headers of a request must arrive "
        f"(default: {unset.deadlines.head_s:g})",
    )
    group.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="certificate chain"
    )
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")
