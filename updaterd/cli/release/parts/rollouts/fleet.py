# SPDX-License-Identifier: Apache-2.0
"""The counts of the fleet, as a table for a person."""

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from updaterd.cli.release.parts import output
from updaterd.cli.release.parts.rollouts import watching

if TYPE_CHECKING:
    from updaterd.release.fleet import Channel
    from updaterd.release.workspace import Workspace

_EVERY_S = 2.0
_ROW = "  {:<20} {:>7} {:>9} {:>9} {:>7} {:>7} {:>8}  {:>8} {:>8} {:>8}"
_HEAD = ("version", "running", "installed", "back", "failed", "refused", "reports",
         "p50", "p95", "p99")  # fmt: skip


def show(arguments: argparse.Namespace, workspace: "Workspace") -> int:
    """Show what machines reported; with `--watch` again and again.

    Raises:
        BrokenError: no feed, no token, or the server does not know it.
        TransientError: the server cannot be reached.
    """
    from updaterd.core.text import printable
    from updaterd.errors import BrokenError
    from updaterd.net import Fetcher
    from updaterd.release import announce, fleet

    feed = arguments.feed or workspace.settings.feed
    if feed is None:
        raise BrokenError(
            "no feed is configured",
            do="give its address with --feed, or write it into release.toml",
            code="no_feed",
        )
    url = fleet.address(feed)
    file = arguments.token_file
    if file is None and workspace.settings.token_file:
        file = workspace.folder / workspace.settings.token_file
    token = announce.read_token(file, os.environ)
    with Fetcher(
        headers={"Authorization": f"Bearer {token}"},
        ca_file=arguments.ca_file,
        origin=url,
    ) as fetcher:
        while True:
            channels = fleet.read(
                fetcher, url, product=arguments.product, limit=arguments.limit
            )
            plans = watching.foretold(arguments, workspace, fetcher, url)
            page = "\n".join(lines(channels))
            for row in plans:
                page += "".join(f"\n{printable(line)}" for line in row.lines())
            if not arguments.watch:
                output.answer(
                    arguments,
                    plans=[row.as_json() for row in plans],
                    channels=[
                        {
                            "product": row.product,
                            "channel": row.channel,
                            "machines": row.machines,
                            "releases": list(row.releases),
                        }
                        for row in channels
                    ],
                )
                print(page)
                return 0
            print(f"\x1b[2J\x1b[H{page}", flush=True)
            time.sleep(_EVERY_S)


def lines(channels: "tuple[Channel, ...]") -> list[str]:
    """Return the page, line by line."""
    from updaterd.core.text import printable

    if not channels:
        return ["no machine has reported yet"]
    page = []
    for row in channels:
        unit = "machine" if row.machines == 1 else "machines"
        page += [f"{row.product} {row.channel}: {row.machines} {unit}"]
        page.append(_ROW.format(*_HEAD))
        for release in row.releases:
            page += _release(release)
    return [printable(line) for line in page]


def _release(release: dict[str, Any]) -> list[str]:
    machines, total = release["machines"], release["latency"].get("total_s", {})
    page = [
        _ROW.format(
            release["version"],
            release["running"],
            machines.get("installed", 0),
            machines.get("rolled_back", 0),
            machines.get("failed", 0),
            machines.get("rejected", 0),
            sum(release["reports"].values()),
            *(_seconds(total.get(name)) for name in ("p50_s", "p95_s", "p99_s")),
        ).rstrip()
    ]
    for row in release["codes"]:
        if row["outcome"] != "installed":
            fault = "" if row["fault"] == "nobody" else f" (fault: {row['fault']})"
            unit = "machine" if row["machines"] == 1 else "machines"
            outcome = row["outcome"].replace("_", " ")
            page.append(
                f"    {outcome}, {row['code']}: {row['machines']} {unit}{fault}"
            )
    return page


def _seconds(value: float | None) -> str:
    from updaterd.core.units import format_duration

    if value is None:
        return "-"
    return f"{value:.2g} s" if value < 60 else str(format_duration(value))
