# SPDX-License-Identifier: Apache-2.0
"""The streams of a delta, put together from what its groups were matched to."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from updaterd.artifact.apply import operations
from updaterd.artifact.codecs import XZ, ZSTD, zstd
from updaterd.release.bundles import matching
from updaterd.release.bundles.grouping import Group
from updaterd.release.bundles.matching import Cover
from updaterd.release.bundles.packing import exchange
from updaterd.release.bundles.packing.runs import Runs
from updaterd.release.bundles.tasks import Pack


class Streams:
    """What the groups add up to, in files."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._covers: list[Cover] = []
        self._runs = Runs()
        self._groups: list[str] = []
        self._counts: list[int] = []

    @property
    def count(self) -> int:
        """Return how many copies there are."""
        return len(self._covers)

    def shares(self, most: int) -> list[int]:
        """Return how many copies each group may have, to be so many together."""
        return [count * most // max(1, self.count) for count in self._counts]

    def add(self, group: Group, prefix: str, idle: int) -> None:
        """Take over one group, in stream order."""
        numbers = iter(_load("Q", f"{prefix}.covers"))
        before = self.count
        self._covers += group.place(list(zip(numbers, numbers, numbers, strict=True)))
        self._counts.append(self.count - before)
        runs = Runs()
        runs.gaps, runs.lengths = (
            _load("I", f"{prefix}.gaps"),
            _load("H", f"{prefix}.lengths"),
        )
        runs.idle = idle
        self._runs.follow(runs)
        self._groups.append(prefix)

    def finish(
        self, names: bytes, images: bytes, archives: bytes, size: int
    ) -> list[Pack]:
        """Return what is to be packed, in the order of the bundle.

        Args:
            names: the script.
            images: the images stream; empty where there is none.
            archives: the archives stream; empty where there is none.
            size: of all that is made.

        Raises:
            OSError: the disk refused.

        Power cut: nothing reads these files again.
        """
        ops = matching.operations(self._covers, size)
        self._covers = []
        written = {
            "script": iter([names]),
            "control": operations.encode(ops),
            "runs": self._runs.blocks(),
        }
        for name, data in written.items():
            with (self._base / name).open("wb") as file:
                file.writelines(data)
        parts = {name: [str(self._base / name)] for name in written} | {
            name: [f"{prefix}.{name}" for prefix in self._groups]
            for name in ("changes", "extra")
        }
        if images or archives:
            (self._base / "images").write_bytes(images)
            parts["images"] = [str(self._base / "images")]
        if archives:
            (self._base / "archives").write_bytes(archives)
            parts["archives"] = [str(self._base / "archives")]
        return [
            Pack(
                parts=paths,
                planar=name in {"control", "runs"},
                out=str(self._base / f"{name}.packed"),
            )
            for name, paths in parts.items()
        ]


def _load(kind: str, path: str) -> "array[int]":
    numbers = array(kind)
    numbers.frombytes(Path(path).read_bytes())
    return numbers


_LONG = 4 << 20
"""Raw bytes from which on a delta with images is packed by zstd alone, whose window is
half of xz's: readers keep much of a program beside it."""

Perform = Callable[[Sequence[Pack], bool], list[list[int]]]
"""Packs streams; the first time it is told so."""


def cheapest(
    packs: Sequence[Pack], perform: Perform, *, imaged: bool, rate: int
) -> tuple[list[Pack], list[list[int]]]:
    """Return the streams as they cost a machine least, and their rows.

    Args:
        packs: what is to be packed.
        perform: does it.
        imaged: the delta has images of programs.
        rate: bytes that a millisecond of CPU is worth (`exchange`).

    Raises:
        BrokenError: one cannot be packed.
        OSError: the disk refused.

    Power cut: nothing reads these files again.
    """
    by_xz = [
        replace(pack, codec=ZSTD if imaged and pack.size > _LONG else XZ)
        for pack in packs
    ]
    ways, tables = [by_xz], [perform(by_xz, True)]
    if zstd() is not None:
        again = [place for place, pack in enumerate(by_xz) if pack.codec != ZSTD]
        others = [
            replace(packs[place], codec=ZSTD, out=f"{packs[place].out}.zstd")
            for place in again
        ]
        by_zstd, table = list(by_xz), list(tables[0])
        for place, pack, row in zip(again, others, perform(others, False), strict=True):
            by_zstd[place], table[place] = pack, row
        ways.append(by_zstd)
        tables.append(table)
    picks = exchange.choose(tables, rate)
    return (
        [ways[way][stream] for stream, way in enumerate(picks)],
        [tables[way][stream] for stream, way in enumerate(picks)],
    )
