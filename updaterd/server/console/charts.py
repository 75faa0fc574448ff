# SPDX-License-Identifier: Apache-2.0
"""Figures drawn on the server: they need no script, and print as they look."""

from collections.abc import Sequence
from dataclasses import dataclass

from updaterd.server.reports.contract import EDGES_S, Histogram, Installed

WIDTH, HEIGHT = 600, 160
STEP_MS = 2 * 3_600_000
MOST_LINES = 5
_LEAST_MS = 6 * STEP_MS


@dataclass(frozen=True, slots=True)
class Line:
    """One release's way: its label, its points, and where it ends."""

    version: str
    points: str
    total: int


@dataclass(frozen=True, slots=True)
class Adoption:
    """Installations of releases over time, added up.

    Attributes:
        lines: the newest first.
        most: the highest point.
        since_ms: the left edge: where the first of them begins.
        until_ms: the right edge.
    """

    lines: tuple[Line, ...]
    most: int
    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One bucket: its label, how many, and how wide its bar is, in percent."""

    label: str
    count: int
    width: float


def adoption(steps: Sequence[Installed], *, since_ms: int, until_ms: int) -> Adoption:
    """Return the lines of the releases that were installed since then."""
    sums: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for step in steps:
        way = sums.setdefault((step.seq, step.version), [])
        before = way[-1][1] if way else 0
        way.append((step.at_ms + STEP_MS, before + step.count))
    newest = sorted(sums.items(), reverse=True)[:MOST_LINES]
    most = max((way[-1][1] for _, way in newest), default=0)
    first = min((way[0][0] - STEP_MS for _, way in newest), default=since_ms)
    since_ms = min(max(since_ms, first), until_ms - _LEAST_MS)
    span = max(1, until_ms - since_ms)

    def place(at_ms: int, total: int) -> str:
        across = WIDTH * min(1.0, max(0.0, (at_ms - since_ms) / span))
        return f"{across:.1f},{HEIGHT - (HEIGHT - 4) * total / max(1, most):.1f}"

    lines = []
    for (_, version), way in newest:
        points = [place(way[0][0] - STEP_MS, 0), *(place(at_ms, n) for at_ms, n in way)]
        points.append(place(until_ms, way[-1][1]))
        lines.append(Line(version, " ".join(points), way[-1][1]))
    return Adoption(tuple(lines), most, since_ms, until_ms)


def bars(histogram: Histogram) -> tuple[Bar, ...]:
    """Return a histogram's buckets, without the empty ones at its two ends."""
    counts = histogram.counts
    filled = [number for number, count in enumerate(counts) if count]
    if not filled:
        return ()
    most = max(counts)
    return tuple(
        Bar(_label(number), counts[number], round(100 * counts[number] / most, 1))
        for number in range(filled[0], filled[-1] + 1)
    )


def _label(number: int) -> str:
    if number == len(EDGES_S):
        return f"more than {duration(EDGES_S[-1])}"
    return f"up to {duration(EDGES_S[number])}"


def duration(seconds: float | None) -> str:
    """Return a duration for people: `0.4 s`, `12 min`, `3 d`."""
    if seconds is None:
        return "-"
    for limit, unit, name in ((100, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"
    return f"{seconds / 86400:.0f} d"
