# SPDX-License-Identifier: Apache-2.0
"""What a person asks of reports: the fleet at a glance, failures, one machine."""

from collections.abc import Mapping, Sequence

from updaterd.server.reports.contract import (
    CLOCK,
    ChannelNow,
    Ending,
    Installed,
    MachineNow,
)
from updaterd.server.reports.tables import Row
from updaterd.server.reports.totals import Totals

_MOST_STEPS = 20_000
_MOST_ENDINGS = 200
_MOST_MANNERS = 100

_LARGEST = """
    WITH newest AS (
        SELECT product, channel, n AS machines, (
            SELECT max(seq) FROM place WHERE place.product = population.product
            AND place.channel = population.channel
        ) AS seq FROM population WHERE n > 0
        ORDER BY n DESC, product, channel LIMIT ?
    ) SELECT """
# CROSS JOIN: SQLite, which has no statistics, begins with the newest
_FROM_NEWEST = "FROM newest CROSS JOIN place"
_NEWEST = """WHERE place.product = newest.product
    AND place.channel = newest.channel AND place.seq = newest.seq """


class Readings(Totals):
    """See `ReportStore`: what the console shows besides totals."""

    def overview(self, *, since_ms: int, limit: int) -> Sequence[ChannelNow]:
        """See `ReportStore.overview`."""
        channels: dict[Row, ChannelNow] = {}
        for product, channel, machines, seq in self.rows(
            f"{_LARGEST} product, channel, machines, seq FROM newest", (limit,)
        ):
            channels[product, channel] = ChannelNow(
                product=product, channel=channel, machines=machines, seq=seq or 0
            )
        runs = f"""{_LARGEST} place.product, place.channel, place.version, (
            SELECT coalesce(sum(n), 0) FROM adoption WHERE adoption.place = place.id
        ), (SELECT coalesce(sum(n), 0) FROM tally WHERE tally.place = place.id
            AND hour >= ?) {_FROM_NEWEST} {_NEWEST}"""  # noqa: S608 - our own words
        for product, channel, version, running, recent in self.rows(
            runs, (limit, since_ms)
        ):
            now = channels.get((product, channel))
            if now is None:
                continue  # it came between two of the queries
            now.version = max(now.version, version)
            now.running += int(running)
            now.recent += int(recent)
        ends = f"""{_LARGEST} place.product, place.channel, manner.outcome, code,
            sum(outcome.n) {_FROM_NEWEST} JOIN outcome ON outcome.place = place.id
            JOIN manner ON manner.id = outcome.manner {_NEWEST} GROUP BY
            place.product, place.channel, manner.outcome, code"""
        for product, channel, outcome, code, n in self.rows(ends, (limit,)):
            now = channels.get((product, channel))
            if n and now is not None:
                now.outcomes[outcome] = now.outcomes.get(outcome, 0) + int(n)
                now.codes[outcome, code] = int(n)
        return tuple(channels.values())

    def rollouts(
        self, product: str, channel: str, *, since_ms: int, seq: int, step_ms: int
    ) -> Sequence[Installed]:
        """See `ReportStore.rollouts`."""
        rows = self.rows(
            "SELECT place.id, hour / ?, sum(n) FROM place "
            "JOIN tally ON tally.place = place.id AND hour >= ? "
            "WHERE product = ? AND channel = ? AND seq >= ? AND tally.manner IN "
            "(SELECT id FROM manner WHERE outcome = 'installed') "
            "GROUP BY 1, 2 ORDER BY 2 LIMIT ?",
            (step_ms, since_ms, product, channel, seq, _MOST_STEPS),
        )
        labels = {
            place: (number, version)
            for place, number, version in self.rows(
                "SELECT id, seq, version FROM place "
                "WHERE product = ? AND channel = ? AND seq >= ?",
                (product, channel, seq),
            )
        }
        steps: dict[tuple[int, str, int], int] = {}
        for place, step, n in rows:
            if place not in labels:
                continue  # it was forgotten between the two
            key = (*labels[place], int(step) * step_ms)
            steps[key] = steps.get(key, 0) + int(n)
        return tuple(
            Installed(version=version, seq=number, at_ms=at_ms, count=n)
            for (number, version, at_ms), n in steps.items()
        )

    def samples(
        self, product: str, channel: str, version: str, *, limit: int
    ) -> Mapping[tuple[str, str], Sequence[str]]:
        """See `ReportStore.samples`."""
        machines: dict[tuple[str, str], list[str]] = {}
        for place, manner, outcome, code in self.rows(
            "SELECT place.id, manner.id, manner.outcome, code FROM place "
            "JOIN outcome ON outcome.place = place.id AND outcome.n > 0 "
            "JOIN manner ON manner.id = outcome.manner "
            "WHERE product = ? AND channel = ? AND version = ? "
            "AND manner.outcome <> 'installed' ORDER BY outcome.n DESC LIMIT ?",
            (product, channel, version, _MOST_MANNERS),
        ):
            sample = machines.setdefault((outcome, code), [])
            if len(sample) >= limit:
                continue
            sample += [
                bytes(row[0]).hex()
                for row in self.rows(
                    "SELECT machine FROM verdict WHERE place = ? AND manner = ? "
                    "AND failed = 1 ORDER BY at_ms DESC LIMIT ?",
                    (place, manner, limit - len(sample)),
                )
            ]
        return machines

    def machine(self, machine: str) -> Sequence[MachineNow]:
        """See `ReportStore.machine`."""
        ident = bytes.fromhex(machine)
        states = self.rows(
            "SELECT machine.product, channel, platform, version, seq, tags, updater, "
            "at_ms FROM machine JOIN place ON place.id = place "
            "JOIN origin ON origin.id = origin "
            "WHERE machine.product IN (SELECT product FROM population) "
            "AND machine = ? ORDER BY machine.product",
            (ident,),
        )
        return tuple(
            MachineNow(
                product=product, channel=channel, platform=platform, version=version,
                seq=seq, tags=tags, updater=updater, at_ms=at_ms,
                endings=self._endings(product, ident),
            )
            for product, channel, platform, version, seq, tags, updater, at_ms in states
        )  # fmt: skip

    def _endings(self, product: str, machine: bytes) -> tuple[Ending, ...]:
        clock = ", ".join(f"{part.removesuffix('_s')}_ms" for part in CLOCK)
        rows = self.rows(
            "SELECT channel, version, seq, manner.outcome, code, started, path, at_ms, "  # noqa: S608 - our own names
            # CROSS: SQLite begins with the machine's, which are few
            f"{clock} FROM verdict CROSS JOIN place "
            "JOIN manner ON manner.id = verdict.manner "
            "WHERE verdict.machine = ? AND place.id = verdict.place AND product = ? "
            "ORDER BY at_ms DESC, seq DESC LIMIT ?",
            (machine, product, _MOST_ENDINGS),
        )
        return tuple(
            Ending(
                channel=row[0], version=row[1], seq=row[2], outcome=row[3], code=row[4],
                trigger=row[5], path=row[6], at_ms=row[7],
                clock={
                    part: ms / 1000
                    for part, ms in zip(CLOCK, row[8:], strict=True) if ms is not None
                },
            )
            for row in rows
        )  # fmt: skip
