# SPDX-License-Identifier: Apache-2.0
"""The metrics of a host: those of its workers, added up."""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

# the process's own: of each, the one that says most about the host
_GREATEST = {"updaterd_log_lag_seconds", "process_start_time_seconds", "updaterd_info"}
_LEAST = {"updaterd_log_up"}
_OF_THE_STORE = "updaterd_release_", "updaterd_publish_to_installed"

Said = list[list[Any]]


def write_metrics(registry: CollectorRegistry) -> Said:
    """Return a registry's metrics as they are sent."""
    return [
        [
            metric.name,
            metric.documentation,
            metric.type,
            [[sample.name, sample.labels, sample.value] for sample in metric.samples],
        ]
        for metric in registry.collect()
    ]


class HostMetrics:
    """A collector of what all workers count.

    Args:
        workers: what each of them sent.
        most: streams that the host would carry by its options.
    """

    def __init__(self, workers: Iterable[Said], *, most: int) -> None:
        self._workers = list(workers)
        self._most = most

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once."""
        merged: dict[str, Metric] = {}
        values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for worker in self._workers:
            for name, documentation, kind, samples in worker:
                if name not in merged:
                    merged[name] = Metric(name, documentation, kind)
                for sample, labels, value in samples:
                    key = (name, sample, tuple(labels.items()))
                    before = values.get(key)
                    values[key] = (
                        value if before is None else _join(name, before, value)
                    )
        for (name, sample, labels), value in values.items():
            least = min(value, self._most) if name == "updaterd_streams_most" else value
            merged[name].add_sample(sample, dict(labels), least)
        count = Metric("updaterd_workers", "Processes that have streams", "gauge")
        count.add_sample("updaterd_workers", {}, len(self._workers))
        yield from merged.values()
        yield count


def _join(name: str, first: float, second: float) -> float:
    if name in _GREATEST or name.startswith(_OF_THE_STORE):
        return max(first, second)
    return min(first, second) if name in _LEAST else first + second


def registry_of(workers: Iterable[Said], *, most: int) -> CollectorRegistry:
    """Return a registry of what all workers count."""
    registry = CollectorRegistry()
    registry.register(HostMetrics(workers, most=most))
    return registry
