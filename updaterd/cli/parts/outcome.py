# SPDX-License-Identifier: Apache-2.0
"""How a run of the pipeline ended: as an exit code, for people, for programs."""

import json
from typing import TYPE_CHECKING

from updaterd.cli import (
    EXIT_CURRENT,
    EXIT_DEGRADED,
    EXIT_PENDING,
    EXIT_ROLLED_BACK,
)

if TYPE_CHECKING:
    from updaterd.pipeline.run import Outcome

SCHEMA = 1
EXIT_OF = {
    "current": EXIT_CURRENT,
    "installed": EXIT_CURRENT,
    "pending": EXIT_PENDING,
    "held": EXIT_PENDING,
    "blocked": EXIT_ROLLED_BACK,
    "rolled_back": EXIT_ROLLED_BACK,
    "refused": EXIT_DEGRADED,
}


def print_line(document: dict[str, object]) -> None:
    """Print an object for programs, in a line."""
    print(json.dumps({"schema": SCHEMA, **document}), flush=True)


def show(outcome: "Outcome", code: int, *, as_json: bool, dry: bool = False) -> None:
    """Print how it ended: what, why, what it cost."""
    from dataclasses import asdict

    from updaterd.core.text import printable

    if as_json:
        print_line({**asdict(outcome), "exit": code})
        return
    for note in outcome.notes:
        print(f"  note: {printable(note)}")
    would = "would do: " if dry and outcome.path else ""
    headline = f"{outcome.product}: {would}{_headline(outcome)}"
    print(printable(headline))
    if outcome.path and outcome.result != "rolled_back":
        print(f"  path: {printable(outcome.path)}")
    for other in outcome.alternatives:
        print(f"  instead of: {printable(other)}")
    if outcome.path and outcome.bytes_full:
        part = 100 * outcome.bytes_fetched / outcome.bytes_full
        verb = "to download" if dry else "downloaded"
        print(
            f"  {outcome.bytes_fetched} bytes {verb}, "
            f"{part:.1f} % of the full bundle's {outcome.bytes_full}"
        )
    if outcome.next_attempt_at is not None:
        from datetime import UTC, datetime

        at = datetime.fromtimestamp(outcome.next_attempt_at, UTC).astimezone()
        print(f"  next attempt: {at:%Y-%m-%d %H:%M:%S %Z}")


def _headline(outcome: "Outcome") -> str:
    match outcome.result:
        case "installed":
            return f"{outcome.from_version or 'nothing'} -> {outcome.version} installed"
        case "rolled_back":
            return (
                f"{outcome.from_version} failed and was rolled back to "
                f"{outcome.version or 'nothing'}: {outcome.reason}"
            )
        case _:
            return f"{outcome.reason} ({outcome.code})"
