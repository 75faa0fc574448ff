# SPDX-License-Identifier: Apache-2.0
"""What a store of reports promises: `ReportStore`, and what it takes and gives.

A report counts once, whatever comes twice; what `add` returned for is durable. Counts
are of machines where they can be, so that one that floods is one machine.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

from updaterd.core.report import PARTS, Report
from updaterd.errors import TransientError

EDGES_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
           21600.0, 86400.0, 604800.0)  # fmt: skip
"""Upper edges of the histograms' buckets; one more has no edge."""

TOTAL = "total_s"
"""From the announcement to the end, by the server's clock and the report's age."""

CLOCK = (TOTAL, *PARTS)
_parts = attrgetter(*PARTS)
_EARLY_S = 5.0  # clocks of servers differ a little
_LONGEST_S = 90 * 86400.0


class StoreDownError(TransientError):
    """The store cannot be used now: the reports may not have been kept."""

    code = "reports_down"


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long a store keeps what, and how much.

    Attributes:
        reports_s: each report, seconds.
        hours_s: counts by the hour, and verdicts.
        machines_s: a machine since its last word.
        releases: names of releases of a channel that are kept apart, and
        channels: so many channels: a liar who invents more adds to one row of the
            channel, and nobody's but that channel's.
        words: combinations of code, trigger and path, and of tags and updater.
    """

    reports_s: float = 90 * 86400.0
    hours_s: float = 400 * 86400.0
    machines_s: float = 400 * 86400.0
    releases: int = 2_000
    channels: int = 1_000
    words: int = 20_000


@dataclass(frozen=True, slots=True)
class Received:
    """A report as it came.

    Attributes:
        report: what the machine says.
        at_ms: when it came, by the server's clock.
        age_s: how long before that its deployment had ended; None: not known.
    """

    report: Report
    at_ms: int
    age_s: float | None = None

    @property
    def total_s(self) -> float | None:
        """Return seconds from the announcement to the end; None where nobody knows.

        What cannot be (before it was announced, years later) is not believed.
        """
        event_ms = self.report.event_ms
        if event_ms is None or self.age_s is None:
            return None
        seconds = (self.at_ms - event_ms) / 1000 - self.age_s
        if not -_EARLY_S <= seconds <= _LONGEST_S:
            return None
        return max(0.0, seconds)

    def clock(self) -> tuple[float | None, ...]:
        """Return seconds of each part in `CLOCK`; None where nobody knows."""
        return (self.total_s, *_parts(self.report))


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket that a duration falls into."""
    return bisect_left(EDGES_S, seconds)


@dataclass(slots=True)
class Histogram:
    """How long something took, over machines."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(EDGES_S) + 1))

    @property
    def count(self) -> int:
        """Return how many machines are in it."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Return the duration below which that share lies, as far as buckets tell."""
        rank, passed = share * self.count, 0
        for number, count in enumerate(self.counts):
            if count and passed + count >= rank:
                if number == len(EDGES_S):
                    return EDGES_S[-1]  # longer than any edge
                low = EDGES_S[number - 1] if number else 0.0
                inside = (rank - passed) / count
                return round(low + (EDGES_S[number] - low) * inside, 3)
            passed += count
        return None


@dataclass(frozen=True, slots=True)
class Population:
    """How many machines follow a channel of a product."""

    product: str
    channel: str
    machines: int


@dataclass(slots=True, kw_only=True)
class ReleaseCounts:
    """What is known of one release on one channel.

    Attributes:
        version: its label.
        seq: its number.
        running: machines whose last word was that they run it.
        platforms: the same by platform.
        tags: the same by tag.
        outcomes: machines by how the release ended there last.
        codes: the same by outcome and code.
        reports: reports by outcome, however many a machine sent.
        bytes_fetched: by all of them.
        bytes_full: what full bundles would have been.
        lost: reports that machines dropped themselves.
        first_ms: when the first report came.
        last_ms: when the last one came.
        clock: histograms by trigger and part.
    """

    version: str
    seq: int
    running: int = 0
    platforms: dict[str, int] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    codes: dict[tuple[str, str], int] = field(default_factory=dict)
    reports: dict[str, int] = field(default_factory=dict)
    bytes_fetched: int = 0
    bytes_full: int = 0
    lost: int = 0
    first_ms: int = 0
    last_ms: int = 0
    clock: dict[tuple[str, str], Histogram] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hour:
    """Reports of one hour, by outcome."""

    hour_ms: int
    outcome: str
    count: int


@dataclass(slots=True, kw_only=True)
class ChannelNow:
    """How one channel stands: its machines, and its newest release.

    Attributes:
        product: whose.
        channel: which one.
        machines: that follow it.
        version: the newest release that was reported about; "": none.
        seq: its number.
        running: machines that run it.
        outcomes: machines by how it ended there last.
        codes: the same by outcome and code.
        recent: reports about it since a while ago.
    """

    product: str
    channel: str
    machines: int
    version: str = ""
    seq: int = 0
    running: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    codes: dict[tuple[str, str], int] = field(default_factory=dict)
    recent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """Installations of one release of a channel, in some hours from `at_ms` on."""

    version: str
    seq: int
    at_ms: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a release ended on a machine, last.

    Attributes:
        channel: where it followed it.
        version: which release.
        seq: its number.
        outcome: how it ended.
        code: why.
        trigger: what started it.
        path: how it was built.
        at_ms: when the report came.
        clock: the parts that are known, seconds.
    """

    channel: str
    version: str
    seq: int
    outcome: str
    code: str
    trigger: str
    path: str
    at_ms: int
    clock: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineNow:
    """What a machine last said of one product.

    Attributes:
        product: which.
        channel: that it follows.
        platform: its own.
        version: that it runs.
        seq: its number.
        tags: as its owner wrote them.
        updater: its updaterd.
        at_ms: when its last report came.
        endings: what became of each release there, the last first.
    """

    product: str
    channel: str
    platform: str
    version: str
    seq: int
    tags: str
    updater: str
    at_ms: int
    endings: tuple[Ending, ...] = ()


class ReportStore(Protocol):
    """Keeps reports and counts them. Used by one thread at a time; blocking.

    Raises:
        StoreDownError: from any method: it does not answer, or the disk refuses.
    """

    def add(self, received: Sequence[Received]) -> int:
        """Keep reports, each once; return how many were new.

        Power cut: all of them with their counts, or none; once it returned, all.
        """
        ...

    def populations(self) -> Sequence[Population]:
        """Return how many machines follow each channel."""
        ...

    def releases(
        self, product: str, channel: str, *, before_seq: int | None, limit: int
    ) -> Sequence[ReleaseCounts]:
        """Return releases, newest first, each with its counts.

        Args:
            product: whose.
            channel: on which.
            before_seq: only older ones; None: from the newest.
            limit: at most so many.
        """
        ...

    def release(self, product: str, channel: str, version: str) -> ReleaseCounts | None:
        """Return one release with its counts; None: nobody reported about it."""
        ...

    def hours(self, product: str, channel: str, version: str) -> Sequence[Hour]:
        """Return the reports about a release, hour by hour."""
        ...

    def newest(self, limit: int) -> Iterable[tuple[str, str, ReleaseCounts]]:
        """Return the newest releases of each channel: product, channel, counts."""
        ...

    def overview(self, *, since_ms: int, limit: int) -> Sequence[ChannelNow]:
        """Return how the channels with most machines stand, at most so many.

        Args:
            since_ms: reports since then are `recent`.
            limit: at most so many channels.
        """
        ...

    def rollouts(
        self, product: str, channel: str, *, since_ms: int, seq: int, step_ms: int
    ) -> Sequence[Installed]:
        """Return installations of the releases of a channel, step by step.

        Args:
            product: whose.
            channel: on which.
            since_ms: since then.
            seq: of releases from this one on.
            step_ms: how long a step is: whole hours.
        """
        ...

    def samples(
        self, product: str, channel: str, version: str, *, limit: int
    ) -> Mapping[tuple[str, str], Sequence[str]]:
        """Return some machines, by outcome and code, where a release failed."""
        ...

    def machine(self, machine: str) -> Sequence[MachineNow]:
        """Return what a machine said last, of each product that it reported about."""
        ...

    def trim(self, now_ms: int) -> int:
        """Delete what is older than is kept; return how many reports went.

        Power cut: some of them, or all.
        """
        ...

    def close(self) -> None:
        """Close it."""
        ...
