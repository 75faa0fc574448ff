# SPDX-License-Identifier: Apache-2.0
"""`updaterd serve`: the feed server."""

import argparse
import sys
from pathlib import Path
from typing import cast

from updaterd.cli.serve.arguments import (
    DAY_S,
    access_arguments,
    count,
    port,
    positive,
    report_arguments,
    stream_arguments,
    workers,
)
from updaterd.cli.serve.options import read_options
from updaterd.clocks import wall_clock

_EXPLAINED = """\
Serves the feed at /v1/events, the repository's files at /repo/, /healthz, /readyz
and /metrics; /openapi.json describes them. Announcing needs a token:
`updaterd token create --scope ...`.

The default keeps its events in one SQLite file and is one process; several
processes share --log redis://HOST:PORT/DB, or a PostgreSQL
(postgresql://USER@HOST/DATABASE, pip install 'updaterd[postgres]'), or a NATS
(nats://HOST:PORT, pip install 'updaterd[nats]'). SIGTERM closes the
streams evenly within --grace and exits.

examples:
  updaterd serve --repo /srv/updates/public --state /var/lib/updaterd-serve
  updaterd serve --state DIR --log redis://10.0.0.5:6379/0 --host 0.0.0.0
  updaterd serve --state DIR --only reports --reports open --reports-store @FILE
  updaterd serve --repo ops/public --state DIR --reports open --console
"""


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
        type=port,
        default=unset.port,
        help=f"0 takes a free one (default: {unset.port})",
    )
    parser.add_argument(
        "--workers",
        type=workers,
        default=unset.workers,
        metavar="N",
        help="processes that have streams; auto: one for each processor. One more "
        "owns the embedded log (default: 1, which is one process)",
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
        type=count,
        default=unset.retention.count,
        metavar="N",
        help=f"number of events to keep (default: {unset.retention.count})",
    )
    parser.add_argument(
        "--keep-days",
        type=positive,
        default=unset.retention.age_s / DAY_S,
        metavar="DAYS",
        help=f"days to keep events (default: {unset.retention.age_s / DAY_S:g})",
    )
    stream_arguments(parser.add_argument_group("streams"), unset)
    access_arguments(parser.add_argument_group("access"), unset)
    report_arguments(parser.add_argument_group("reports"), unset)


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
    if arguments.console and not (arguments.reports or arguments.only):
        print("updaterd serve: --console shows reports: add --reports", file=sys.stderr)
        return EXIT_USAGE
    try:
        from updaterd.server import process
    except ModuleNotFoundError as error:
        raise BrokenError(
            f"the feed server needs a package that is missing: {error.name}",
            do="pip install 'updaterd[server]'",
            code="extra_missing",
        ) from error
    if arguments.console:
        _need_templates()
    _configure_logs(arguments.log_format)
    options = read_options(arguments)
    # the edge of the program: this is where clocks come from
    process.serve(options, clock=time.monotonic, now=wall_clock)
    return 0


def _need_templates() -> None:
    """Make sure that the console's extra is there.

    Raises:
        BrokenError: it is not.
    """
    import importlib.util

    from updaterd.errors import BrokenError

    if importlib.util.find_spec("jinja2") is None:
        raise BrokenError(
            "the console needs a package that is missing: jinja2",
            do="pip install 'updaterd[console]'",
            code="extra_missing",
        )


def _configure_logs(destination: str) -> None:
    import os

    from updaterd import log

    stream = cast("log.Stream", destination)
    if destination == "auto" and not (
        sys.stderr.isatty() or "JOURNAL_STREAM" in os.environ
    ):
        stream = "json"  # a container, a file: someone will search it
    log.configure(stream)
