# SPDX-License-Identifier: Apache-2.0
"""Reports counted as they come, above two kinds of SQL.

Counts are kept with each report's own transaction, as differences: a page costs the
same with a thousand machines and with a million.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from updaterd.server.reports.contract import Received, bucket_of
from updaterd.server.reports.readings import Readings
from updaterd.server.reports.tables import VERDICT_COLUMNS, Row

HOUR_MS = 3_600_000
_SWEEP_MS = 86_400_000
_MOST_BYTES = 1 << 40  # of one update, as far as anybody believes it
_MOST_LOST = 1 << 20
_MOST = 1 << 50
"""Where a count stays: what is above it was made up, and must not overflow a sum."""


_REPLACE_VERDICT = "ON CONFLICT (machine, place) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in VERDICT_COLUMNS[2:]
)


class _Verdict(NamedTuple):
    """How it ended: what follows the key in its row, and what makes the latency."""

    row: Row
    trigger: str
    clock: tuple[float | None, ...]


class CountingStore(Readings):
    """See `ReportStore`: the counting, and what is old."""

    def add(self, received: Sequence[Received]) -> int:
        """See `ReportStore.add`."""
        with self._change():
            self._recall()
            fresh = self._fresh(received)
            if fresh:
                self._add(fresh)
        return len(fresh)

    def _fresh(self, received: Sequence[Received]) -> list[tuple[bytes, Received]]:
        """Return those that are not known yet, each once, with their ids."""
        by_id: dict[bytes, Received] = {}
        for came in received:
            ident = bytes.fromhex(came.report.id.replace("-", ""))
            by_id.setdefault(ident, came)
        known = {
            bytes(row[0])
            for row in self.pick("report", "", ("id",), [(ident,) for ident in by_id])
        }
        return [(ident, came) for ident, came in by_id.items() if ident not in known]

    def _add(self, fresh: Sequence[tuple[bytes, Received]]) -> None:
        rows: list[Row] = []
        tally: dict[Row, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        machines: dict[tuple[str, bytes], Row] = {}
        verdicts: dict[tuple[bytes, int], _Verdict] = {}
        for ident, came in fresh:
            report, at_ms = came.report, came.at_ms
            machine = bytes.fromhex(report.machine)
            place, manner, origin = self._number(came)
            clock = came.clock()
            times = tuple(None if s is None else int(s * 1000) for s in clock)
            rows.append((
                *(ident, at_ms, machine, place, manner, origin, report.from_seq),
                *(times[0], times[-1]),
            ))
            cell = tally[place, at_ms // HOUR_MS * HOUR_MS, manner]
            cell[0] += 1
            cell[1] += min(report.bytes_fetched, _MOST_BYTES)
            cell[2] += min(report.bytes_full, _MOST_BYTES)
            cell[3] += min(report.lost, _MOST_LOST)
            if report.outcome == "delta_refused":
                continue  # not an end: the update went on
            runs = self._runs(came, place)
            machines[report.product, machine] = (runs, origin, at_ms)
            if report.outcome != "current":
                failed = int(report.outcome != "installed")
                row = (manner, at_ms, failed, *times)
                verdicts[machine, place] = _Verdict(row, report.trigger, clock)
        self.put(
            "report",
            ("id", "at_ms", "machine", "place", "manner", "origin", "from_seq",
             "total_ms", "ended_ms"),
            rows,
            "ON CONFLICT DO NOTHING",
        )  # fmt: skip
        self._count_machines(machines)
        self._count_verdicts(verdicts)
        self._count_reports(tally)

    def _count_reports(self, tally: dict[Row, list[int]]) -> None:
        """Count reports by the hour, and altogether."""
        names = ("n", "bytes_fetched", "bytes_full", "lost")
        self.put(
            "tally",
            ("place", "hour", "manner", *names),
            [(*key, *cell) for key, cell in sorted(tally.items())],
            f"ON CONFLICT (place, hour, manner) DO UPDATE SET {_added_up('tally')}",
        )
        total: dict[Row, list[int]] = {}
        for (place, hour, manner), cell in sorted(tally.items()):
            whole = total.setdefault((place, manner), [0, 0, 0, 0, hour, hour])
            whole[:4] = [a + b for a, b in zip(whole, cell, strict=False)]
            whole[5] = hour
        self.put(
            "total",
            ("place", "manner", *names, "first_ms", "last_ms"),
            [(*key, *whole) for key, whole in total.items()],
            f"ON CONFLICT (place, manner) DO UPDATE SET {_added_up('total')}, "
            "last_ms = excluded.last_ms",
        )

    def _count_machines(self, machines: dict[tuple[str, bytes], Row]) -> None:
        """Note what each runs, and count it there instead of where it was."""
        adoption: Counter[Row] = Counter()
        population: Counter[Row] = Counter()
        before = {
            (row[0], bytes(row[1])): row[2:]
            for row in self.pick(
                *("machine", "place, origin", ("product", "machine")), list(machines)
            )
        }
        for key, (place, origin, _) in machines.items():
            adoption[place, origin] += 1
            population[self._follows(place)] += 1
            if key in before:
                adoption[before[key]] -= 1
                population[self._follows(before[key][0])] -= 1
        self.put(
            "machine",
            ("product", "machine", "place", "origin", "at_ms"),
            [(*key, *value) for key, value in sorted(machines.items())],
            "ON CONFLICT (product, machine) DO UPDATE SET place = excluded.place, "
            "origin = excluded.origin, at_ms = excluded.at_ms",
        )
        self._add_up("adoption", ("place", "origin"), adoption)
        self._add_up("population", ("product", "channel"), population)

    def _count_verdicts(self, verdicts: dict[tuple[bytes, int], "_Verdict"]) -> None:
        """Note how it ended, count it there, and how long it took the first time."""
        outcome: Counter[Row] = Counter()
        latency: Counter[Row] = Counter()
        before = {
            (bytes(row[0]), row[1]): row[2]
            for row in self.pick(
                "verdict", "manner", ("machine", "place"), list(verdicts)
            )
        }
        for key, ((manner, _, failed, *_), trigger, clock) in verdicts.items():
            place = key[1]
            outcome[place, manner] += 1
            if key in before:
                outcome[place, before[key]] -= 1
            elif not failed:
                for part, seconds in enumerate(clock):
                    if seconds is not None:
                        latency[place, trigger, part, bucket_of(seconds)] += 1
        self.put(
            "verdict",
            VERDICT_COLUMNS,
            [(*key, *verdict.row) for key, verdict in sorted(verdicts.items())],
            _REPLACE_VERDICT,
        )
        self._add_up("outcome", ("place", "manner"), outcome)
        self._add_up("latency", ("place", "started", "part", "bucket"), latency)

    def _add_up(self, table: str, key: Sequence[str], counts: Counter[Row]) -> None:
        self.put(
            table,
            (*key, "n"),
            [(*cell, n) for cell, n in sorted(counts.items()) if n],
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET n = {table}.n + excluded.n",
        )

    # ---- what is old

    def trim(self, now_ms: int) -> int:
        """See `ReportStore.trim`.

        What has no index by its time is looked through once a day, each table in a
        transaction of its own: nobody who reports waits for all of it.
        """
        keep = self._keeping
        with self._change():
            deleted = self.run(
                "DELETE FROM report WHERE at_ms < ?",
                (now_ms - int(keep.reports_s * 1000),),
            )
        swept = self._swept_ms
        # a clock that was ahead once must not put it off until then
        if swept is None or not 0 <= now_ms - swept < _SWEEP_MS:
            self._sweep(now_ms)
            self._swept_ms = now_ms
        return deleted

    def _sweep(self, now_ms: int) -> None:
        """Delete old hours, verdicts and machines, and names that nothing has.

        Power cut: some of the steps were done; the next sweep does the others.
        """
        keep = self._keeping
        with self._change():
            self.run(
                "DELETE FROM tally WHERE hour < ?", (now_ms - int(keep.hours_s * 1000),)
            )
        with self._change():
            self._recall()
            self._leave(now_ms - int(keep.machines_s * 1000))
        with self._change():
            self.run(
                "DELETE FROM verdict WHERE at_ms < ?",
                (now_ms - int(keep.hours_s * 1000),),
            )
        with self._change():
            self._forget_names()

    def _forget_names(self) -> None:
        """Delete what counts nothing any more, and names that nothing has.

        Joins, not lists of numbers: beyond the memory of a sort, PostgreSQL would look
        through such a list for each row.
        """
        for table in ("adoption", "population", "outcome"):
            self.run(f"DELETE FROM {table} WHERE n = 0")  # noqa: S608 - our own names
        places = ["tally", "adoption"]  # which has the machines
        if self._keeping.reports_s > self._keeping.hours_s:
            places.append("report")  # else each has its hour
        unused = " AND ".join(
            f"NOT EXISTS (SELECT 1 FROM {table} WHERE {table}.place = place.id)"  # noqa: S608 - our own names
            for table in places
        )
        # verdicts lie by machine: gone through once, not once for each place
        present = "SELECT DISTINCT place FROM verdict"
        self.run(
            "DELETE FROM place WHERE id IN (SELECT place.id FROM place "  # noqa: S608 - our own names
            f"LEFT JOIN ({present}) AS present ON present.place = place.id "
            f"WHERE present.place IS NULL) AND {unused}"
        )
        for name, tables in (
            ("manner", ("report", "verdict", "tally")),
            ("origin", ("report", "adoption")),
        ):
            used = " UNION ".join(f"SELECT {name} FROM {table}" for table in tables)  # noqa: S608 - our own names
            self.run(f"DELETE FROM {name} WHERE id NOT IN ({used})")  # noqa: S608 - our own names
        for table, columns in (
            ("latency", ("place",)),
            ("total", ("place", "manner")),
            ("outcome", ("place", "manner")),
            ("adoption", ("place", "origin")),
        ):
            for name in columns:
                self.run(
                    f"DELETE FROM {table} WHERE NOT EXISTS "  # noqa: S608 - our own names
                    f"(SELECT 1 FROM {name} WHERE {name}.id = {table}.{name})"
                )
        self.run("UPDATE sweep SET n = n + 1")
        self._forget()

    def _leave(self, before_ms: int) -> None:
        """Count no longer the machines that have not been heard of since."""
        adoption: Counter[Row] = Counter()
        population: Counter[Row] = Counter()
        for place, origin, n in self.rows(
            "SELECT place, origin, count(*) FROM machine WHERE at_ms < ? "
            "GROUP BY place, origin",
            (before_ms,),
        ):
            adoption[place, origin] -= int(n)
            population[self._follows(place)] -= int(n)
        self.run("DELETE FROM machine WHERE at_ms < ?", (before_ms,))
        self._add_up("adoption", ("place", "origin"), adoption)
        self._add_up("population", ("product", "channel"), population)


def _added_up(table: str) -> str:
    """Return how a row of counts is added to the one that is there."""
    bounded = (
        f"{name} = CASE WHEN {table}.{name} < {_MOST} "
        f"THEN {table}.{name} + excluded.{name} ELSE {table}.{name} END"
        for name in ("bytes_fetched", "bytes_full", "lost")
    )
    return ", ".join((f"n = {table}.n + excluded.n", *bounded))
