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

_ONE = "SELECT CAST(? AS BIGINT) AS seq, CAST(? AS TEXT) AS version"
_NEWEST = """SELECT DISTINCT seq, version FROM place WHERE product = ?
    AND channel = ? AND seq < ? ORDER BY seq DESC, version DESC LIMIT ?"""
# CROSS JOIN: SQLite, which has no statistics, begins with what is shown
_FROM = "FROM shown CROSS JOIN place"
_OF_RELEASES = """WHERE place.product = ? AND place.channel = ?
    AND place.seq = shown.seq AND place.version = shown.version"""
_ADOPTION = f"""
    SELECT place.seq, place.version, place.platform, tags, sum(n) {_FROM}
    JOIN adoption ON adoption.place = place.id JOIN origin ON origin.id = origin
    {_OF_RELEASES}
    GROUP BY 1, 2, 3, 4"""
_OUTCOMES = f"""
    SELECT place.seq, place.version, manner.outcome, code, sum(n) {_FROM}
    JOIN outcome ON outcome.place = place.id JOIN manner ON manner.id = manner
    {_OF_RELEASES}
    GROUP BY 1, 2, 3, 4"""
_REPORTS = f"""
    SELECT place.seq, place.version, manner.outcome, sum(n),
           sum(bytes_fetched * 1.0), sum(bytes_full * 1.0), sum(lost * 1.0),
           min(first_ms), max(last_ms) {_FROM}
    JOIN total ON total.place = place.id JOIN manner ON manner.id = manner
    {_OF_RELEASES}
    GROUP BY 1, 2, 3"""
_LATENCY = f"""
    SELECT place.seq, place.version, started, part, bucket, sum(n) {_FROM}
    JOIN latency ON latency.place = place.id
    {_OF_RELEASES}
    GROUP BY 1, 2, 3, 4, 5"""


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
        newest = (product, channel, below, limit)
        releases = [
            ReleaseCounts(version=version, seq=seq)
            for seq, version in self.rows(_NEWEST, newest)
        ]
        self._count_up(product, channel, releases, _NEWEST, newest)
        return tuple(releases)

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
        counts = ReleaseCounts(version=version, seq=rows[0][0])
        label = (counts.seq, counts.version)
        self._count_up(product, channel, [counts], _ONE, label)
        return counts

    def _count_up(
        self,
        product: str,
        channel: str,
        releases: Sequence[ReleaseCounts],
        shown: str,
        values: Sequence[Any],
    ) -> None:
        """Fill in what is known of releases, with four queries for all of them.

        Args:
            product: whose they are.
            channel: where they were offered.
            releases: without figures.
            shown: a query for `seq` and `version` of the same releases.
            values: of its holes.
        """
        of = {(counts.seq, counts.version): counts for counts in releases}
        key = (*values, product, channel)

        def rows(query: str) -> Iterator[tuple[ReleaseCounts, Sequence[Any]]]:
            for seq, version, *rest in self.rows(
                f"WITH shown AS ({shown}){query}", key
            ):
                if (seq, version) in of:  # else it came between two of the queries
                    yield of[seq, version], rest

        for counts, (platform, tags, n) in rows(_ADOPTION):
            counts.running += int(n)
            _count(counts.platforms, platform, int(n))
            for tag in tags.split():
                _count(counts.tags, tag, int(n))
        for counts, (outcome, code, n) in rows(_OUTCOMES):
            _count(counts.outcomes, outcome, int(n))
            _count(counts.codes, (outcome, code), int(n))
        for counts, (outcome, n, fetched, full, lost, first, last) in rows(_REPORTS):
            _count(counts.reports, outcome, int(n))
            counts.bytes_fetched += int(fetched)
            counts.bytes_full += int(full)
            counts.lost += int(lost)
            counts.first_ms = min(counts.first_ms or first, first)
            counts.last_ms = max(counts.last_ms, last)
        for counts, (started, part, bucket, n) in rows(_LATENCY):
            name = (started, CLOCK[part])
            histogram = counts.clock.setdefault(name, Histogram())
            histogram.counts[bucket] += int(n)

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
