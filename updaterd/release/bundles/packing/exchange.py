# SPDX-License-Identifier: Apache-2.0
"""What a byte less is worth: bytes saved against CPU that every machine spends.

A stream is packed by what costs a machine least: its bytes, and a stated number of
bytes for each millisecond of CPU that decoding takes. The rate is the publisher's
(`push --for`), the milliseconds were measured once: what counts is how the codecs
compare, not how fast a machine is.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, combinations

from updaterd.artifact.codecs import BZ2, STORED, XZ, ZSTD

RATES: Mapping[str, int] = {"bytes": 0, "balanced": 500, "cpu": 8000}
"""Bytes that a millisecond of CPU is worth. 500 are what a line of 4 Mbit/s brings in
that time, 8000 one of 64 Mbit/s."""
BALANCED = RATES["balanced"]

_BY_RAW = {STORED: 0.0, ZSTD: 1.8e-6, XZ: 0.0, BZ2: 45e-6}
_BY_PACKED = {STORED: 0.0, ZSTD: 0.0, XZ: 70e-6, BZ2: 0.0}
_LOAD = {STORED: 0.0, ZSTD: 4.0, XZ: 1.0, BZ2: 0.5}

Row = Sequence[int]
"""Codec, raw bytes and packed bytes of a stream."""


def decoding(codec: int, raw: int, packed: int) -> float:
    """Return how many milliseconds of CPU it takes to decode a stream, about."""
    return _BY_RAW[codec] * raw + _BY_PACKED[codec] * packed


def weight(row: Row, rate: int) -> float:
    """Return what a stream costs a machine, in bytes."""
    return row[2] + rate * decoding(*row)


def choose(tables: Sequence[Sequence[Row]], rate: int) -> list[int]:
    """Return which table to take each stream from.

    A decoder that is used takes time to load, whatever it decodes.

    Args:
        tables: the same streams, packed in several ways.
        rate: bytes that a millisecond is worth.
    """
    ways = range(len(tables))
    sets = chain.from_iterable(combinations(ways, count + 1) for count in ways)

    def best(usable: Sequence[int]) -> tuple[float, list[int]]:
        picks = [
            min(usable, key=lambda way: weight(tables[way][stream], rate))
            for stream in range(len(tables[0]))
        ]
        rows = [tables[way][stream] for stream, way in enumerate(picks)]
        load = sum(_LOAD[codec] for codec in {row[0] for row in rows})
        return sum(weight(row, rate) for row in rows) + rate * load, picks

    return min((best(usable) for usable in sets), key=lambda outcome: outcome[0])[1]
