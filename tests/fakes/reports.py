# SPDX-License-Identifier: Apache-2.0
"""Reports as machines send them."""

import uuid
from dataclasses import replace

from updaterd.core.report import Report, join
from updaterd.server.reports.contract import Received

NOW_MS = 1_800_000_000_000


def report(machine=1, version="2.0.0", seq=2, outcome="installed", **more) -> Report:
    code = {"installed": "upgrade", "rolled_back": "unhealthy", "current": ""}
    return replace(
        Report(
            id=str(uuid.uuid4()),
            machine=f"{machine:032x}",
            product="acme",
            channel="stable",
            platform="linux-x86_64",
            updater="0.2.0",
            outcome=outcome,
            version=version,
            seq=seq,
            from_version="1.0.0",
            from_seq=1,
            trigger="event",
            code=code.get(outcome, "disk_full"),
            event_ms=NOW_MS - 5000,
            ended_s=3.0,
            bytes_fetched=100,
            bytes_full=1000,
            path="delta",
        ),
        **more,
    )


def received(*reports, at_ms=NOW_MS, age_s=1.0) -> list[Received]:
    return [Received(each, at_ms, age_s) for each in reports]


def body(*reports) -> bytes:
    return join([each.encode() for each in reports])
