# SPDX-License-Identifier: Apache-2.0
"""The server's options, from the command line."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.serve.arguments import DAY_S

if TYPE_CHECKING:
    from updaterd.server.options import Options


def read_options(arguments: argparse.Namespace) -> "Options":
    """Return what the command line says, as the server's options.

    Raises:
        BrokenError: the file with the event log's URL cannot be read.
    """
    from updaterd.server.log.contract import Retention
    from updaterd.server.options import (
        ConsoleOptions,
        Deadlines,
        Options,
        ReportOptions,
    )

    alone = arguments.only == "reports"
    return Options(
        state=arguments.state.absolute(),
        workers=arguments.workers,
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
            keep_s=arguments.keep_reports * DAY_S,
        ),
        console=ConsoleOptions(
            on=arguments.console,
            audit=arguments.audit and arguments.audit.absolute(),
        ),
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        retention=Retention(
            count=arguments.keep_events, age_s=arguments.keep_days * DAY_S
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
