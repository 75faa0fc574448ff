# SPDX-License-Identifier: Apache-2.0
"""What reports come to: machines, verdicts and hours of each release, added up."""

from collections.abc import Iterator, Sequence
from typing import Any

from updaterd.server.reports.contract import (
    CLOCK,
    Histogram,
    Hour,
    Population,
    ReleaseCounts,
)
from updaterd.server.reports.numbers import NumberedNames

_OF_RELEASE = """
    JOIN place ON place.id = place
    WHERE product = ? AND channel = ? AND seq = ? AND version = ?
    GROUP BY """
_ADOPTION = f"""
    SELECT platform, tags, sum(n) FROM adoption JOIN origin ON origin.id = origin
    {_OF_RELEASE} platform, tags"""  # noqa: S608 - our own words
_OUTCOMES = f"""
    SELECT manner.outcome, code, sum(n) FROM outcome JOIN manner ON manner.id = manner
    {_OF_RELEASE} manner.outcome, code"""  # noqa: S608 - as above
_REPORTS = f"""
    SELECT outcome, sum(n), sum(bytes_fetched * 1.0), sum(bytes_full * 1.0),
           sum(lost * 1.0), min(first_ms), max(last_ms)
    FROM total JOIN manner ON manner.id = manner
    {_OF_RELEASE} outcome"""  # noqa: S608 - as above
_LATENCY = f"""
    SELECT started, part, bucket, sum(n) FROM latency
    {_OF_RELEASE} started, part, bucket"""  # noqa: S608 - as above


class Totals(NumberedNames):
    """See `ReportStore`: the reading."""

    def populations(self) -> Sequence[Population]:
        """See `ReportStore.populations`."""
        rows = self.rows(
            "SELECT product, channel, n FROM population WHERE n > 0 "
            "ORDER BY product, channel"
        )
        return tuple(Population(*row) for row in rows)

    def releases(
        self, product: str, channel: str, *, before_seq: int | None, limit: int
    ) -> Sequence[ReleaseCounts]:
        """See `ReportStore.releases`."""
        below = (1 << 62) if before_seq is None else before_seq
        releases = self.rows(
            "SELECT DISTINCT seq, version FROM place WHERE product = ? "
            "AND channel = ? AND seq < ? ORDER BY seq DESC, version DESC LIMIT ?",
            (product, channel, below, limit),
        )
        return tuple(
            self._counts(product, channel, version, seq) for seq, version in releases
        )

    def release(self, product: str, channel: str, version: str) -> ReleaseCounts | None:
        """See `ReportStore.release`."""
        rows = self.rows(
            "SELECT seq, coalesce((SELECT sum(n) FROM outcome WHERE place = id), 0) "
            "+ coalesce((SELECT sum(n) FROM adoption WHERE place = id), 0) AS machines "
            "FROM place WHERE product = ? AND channel = ? AND version = ? "
            "ORDER BY machines DESC, seq LIMIT 1",
            (product, channel, version),
        )
        if not rows:
            return None
        return self._counts(product, channel, version, rows[0][0])

    def _counts(
        self, product: str, channel: str, version: str, seq: int
    ) -> ReleaseCounts:
        counts = ReleaseCounts(version=version, seq=seq)
        key = (product, channel, seq, version)
        for platform, tags, n in self.rows(_ADOPTION, key):
            counts.running += int(n)
            _count(counts.platforms, platform, int(n))
            for tag in tags.split():
                _count(counts.tags, tag, int(n))
        for outcome, code, n in self.rows(_OUTCOMES, key):
            _count(counts.outcomes, outcome, int(n))
            _count(counts.codes, (outcome, code), int(n))
        for outcome, n, fetched, full, lost, first, last in self.rows(_REPORTS, key):
            _count(counts.reports, outcome, int(n))
            counts.bytes_fetched += int(fetched)
            counts.bytes_full += int(full)
            counts.lost += int(lost)
            counts.first_ms = min(counts.first_ms or first, first)
            counts.last_ms = max(counts.last_ms, last)
        for started, part, bucket, n in self.rows(_LATENCY, key):
            name = (started, CLOCK[part])
            histogram = counts.clock.setdefault(name, Histogram())
            histogram.counts[bucket] += int(n)
        return counts

    def hours(self, product: str, channel: str, version: str) -> Sequence[Hour]:
        """See `ReportStore.hours`."""
        rows = self.rows(
            "SELECT hour, outcome, sum(n) FROM tally "
            "JOIN manner ON manner.id = manner JOIN place ON place.id = place "
            "WHERE product = ? AND channel = ? AND version = ? "
            "GROUP BY hour, outcome ORDER BY hour DESC, outcome LIMIT 2000",
            (product, channel, version),
        )
        return tuple(Hour(int(hour), name, int(n)) for hour, name, n in rows)

    def newest(self, limit: int) -> Iterator[tuple[str, str, ReleaseCounts]]:
        """See `ReportStore.newest`."""
        largest = sorted(self.populations(), key=lambda of: of.machines, reverse=True)
        for releases in largest[:200]:
            for counts in self.releases(
                releases.product, releases.channel, before_seq=None, limit=limit
            ):
                yield releases.product, releases.channel, counts


def _count(into: dict[Any, int], key: Any, n: int) -> None:
    if n:
        into[key] = into.get(key, 0) + n
