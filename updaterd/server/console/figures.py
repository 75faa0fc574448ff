# SPDX-License-Identifier: Apache-2.0
"""What the pages show, made of counts: shares, whose fault, what was saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from updaterd.core import codes
from updaterd.core.channel import ChannelPointer
from updaterd.core.plan import RUNNING
from updaterd.server.reports.contract import (
    CLOCK,
    TOTAL,
    ChannelNow,
    Histogram,
    ReleaseCounts,
)

FAILED = ("rolled_back", "rejected", "failed")
# A channel's, by how soon a person should look, and their names on the fleet's page.
STATES = {
    "halted": "Halted by themselves",
    "wrong": "With a bad release",
    "paused": "Paused",
    "moving": "Moving",
    "quiet": "Quiet",
}
PARTS = {
    TOTAL: "announced to over",
    "seen_s": "decided",
    "fetched_s": "fetched",
    "staged_s": "staged",
    "activated_s": "on trial",
    "ended_s": "over",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRow:
    """One line of the fleet's page.

    Attributes:
        now: the counts.
        share: of the machines that run the newest release, percent.
        blamed: machines where the newest release was at fault.
        failed: machines where it did not succeed for another reason.
        state: one of `STATES`.
        step: which of its plan's steps it is at; "" without a plan that moves.
    """

    now: ChannelNow
    share: float
    blamed: int
    failed: int
    state: str
    step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a release failed on machines, and on which, some of them."""

    outcome: str
    code: str
    meaning: str
    fault: str
    machines: int
    samples: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How long one part of an update took."""

    name: str
    machines: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


def row_of(now: ChannelNow, pointer: ChannelPointer | None = None) -> ChannelRow:
    """Return a channel's line.

    Args:
        now: what machines told.
        pointer: what is offered; None: not to be seen here.
    """
    ends = [(code, n) for (outcome, code), n in now.codes.items() if outcome in FAILED]
    blamed = sum(n for code, n in ends if fault_of(code) == "release")
    plan = pointer.plan if pointer is not None else None
    return ChannelRow(
        now=now,
        share=share(now.running, now.machines),
        blamed=blamed,
        failed=sum(n for _, n in ends) - blamed,
        state=_state(now, pointer, is_blamed=blamed > 0),
        step=(
            f"step {plan.step + 1} of {len(plan.steps)}"
            if plan is not None and plan.state == RUNNING
            else ""
        ),
    )


def _state(now: ChannelNow, pointer: ChannelPointer | None, *, is_blamed: bool) -> str:
    """Return one of `STATES`: what was signed goes before what was counted."""
    if pointer is not None and pointer.halted:
        return "halted"
    if is_blamed:
        return "wrong"
    if pointer is not None and pointer.paused:
        return "paused"
    return "moving" if now.recent and now.running < now.machines else "quiet"


def share(part: int, whole: int) -> float:
    """Return a share in percent, never above 100."""
    return round(min(100.0, 100 * part / whole), 1) if whole > 0 else 0.0


def fault_of(code: str) -> str:
    """Return whose fault a code is; "unknown" for one of a newer machine."""
    row = codes.find(code)
    return str(row.kind) if row else "unknown"


def failures(
    counts: ReleaseCounts, samples: Mapping[tuple[str, str], Sequence[str]]
) -> tuple[Failure, ...]:
    """Return why a release failed, the most frequent reason first."""
    rows = []
    for (outcome, code), machines in counts.codes.items():
        if outcome == "installed":
            continue
        known = codes.find(code)
        rows.append(
            Failure(
                outcome=outcome,
                code=code,
                meaning=known.meaning if known else "",
                fault=fault_of(code),
                machines=machines,
                samples=samples.get((outcome, code), ()),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.machines, row.outcome, row.code)))


def by_part(counts: ReleaseCounts) -> dict[str, Histogram]:
    """Return the histograms of a release by part, of all triggers together."""
    parts: dict[str, Histogram] = {}
    for (_, part), histogram in counts.clock.items():
        whole = parts.setdefault(part, Histogram())
        whole.counts = [
            a + b for a, b in zip(whole.counts, histogram.counts, strict=True)
        ]
    return parts


def parts(counts: ReleaseCounts) -> tuple[Part, ...]:
    """Return how long each part took, in their order."""
    known = by_part(counts)
    return tuple(
        Part(
            name=PARTS[part],
            machines=known[part].count,
            p50_s=known[part].quantile(0.5),
            p95_s=known[part].quantile(0.95),
            p99_s=known[part].quantile(0.99),
        )
        for part in CLOCK
        if part in known
    )


def saved(counts: ReleaseCounts) -> float:
    """Return how much less was fetched than full bundles would have been, percent."""
    full = counts.bytes_full
    return share(max(0, full - counts.bytes_fetched), full)


def failed(counts: ReleaseCounts) -> int:
    """Return on how many machines a release did not succeed, last."""
    return sum(counts.outcomes.get(outcome, 0) for outcome in FAILED)
