# SPDX-License-Identifier: Apache-2.0
"""Short deltas whose new bytes are packed with the old files at hand.

New text resembles old text in pieces that are too short to be copied by an operation.
A frame of zstd whose prefix are the old files finds them. Operations and frame are
tried together, and the frame alone, with all that is made in it: the shorter counts.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from updaterd.artifact.apply import operations
from updaterd.artifact.codecs import MAX_PREFIX, STORED, ZSTD
from updaterd.core.bundle_kinds import ARCHIVES, ARM, DELTA, PRIMED, PROJECTED
from updaterd.core.manifest import Entry, File
from updaterd.release.bundles import matching
from updaterd.release.bundles.archives.expansion import Sides
from updaterd.release.bundles.packing import compress
from updaterd.release.bundles.plan import Plan
from updaterd.release.bundles.programs.images import Imaging
from updaterd.release.bundles.tasks import Pack

_LEAST = 64
"""Bytes of old files from which on they may be a prefix."""
_LITTLE = 1 << 17
"""Bytes of new files up to which all is tried: it costs next to nothing."""
_LOOK = 1 << 13
"""Bytes by which text is told from anything else, as git and grep do: it has no NUL."""

Row = list[int]
"""Codec, raw bytes and packed bytes of a stream."""


def suits(sides: Sides) -> bool:
    """Tell whether files are short enough, on both sides, and what is new is text.

    Programs and what is packed already gain nothing, and cost most to try.

    Raises:
        OSError: a file cannot be read.
    """
    old, new = (sum(f.length for f in part) for part in (sides.sources, sides.targets))
    if not (_LEAST <= old <= MAX_PREFIX and 0 < new <= MAX_PREFIX):
        return False
    return new <= _LITTLE or 2 * _text(sides) >= new


def _text(sides: Sides) -> int:
    """Return how many bytes of what is new are of text files."""
    total = 0
    for file, path in zip(sides.targets, sides.new, strict=True):
        with path.open("rb") as opened:
            total += 0 if b"\0" in opened.read(_LOOK) else file.length
    return total


def with_all(plan: Plan, old: Sequence[Entry]) -> Plan:
    """Return a plan that has all old files as sources, where they are short enough.

    New text resembles what stays as well as what goes.
    """
    places = tuple(place for place, entry in enumerate(old) if isinstance(entry, File))
    total = sum(entry.length for entry in old if isinstance(entry, File))
    return replace(plan, sources=places) if total <= MAX_PREFIX else plan


def kind_of(kind: str, imaged: Imaging, archives: bytes) -> str:
    """Return what kind of bundle came out, by what was asked for and what is in it."""
    if kind == PRIMED or archives:
        return ARCHIVES if archives else PRIMED
    return (ARM if imaged.arm else PROJECTED) if imaged.stream else DELTA


def pack(
    base: Path, sides: Sides, packs: Sequence[Pack], table: Sequence[Row]
) -> tuple[list[Row], list[str]]:
    """Return the streams of a delta anew: their rows, and the files that hold them.

    Args:
        base: where to write.
        sides: what it is made of, and what is made, in the order of the operations.
        packs: script, control, runs, changes and extra.
        table: their rows, as they are packed without a prefix.

    Raises:
        BrokenError: this Python has no zstd.
        OSError: the disk refused.

    Power cut: nothing reads these files again.
    """
    old = b"".join(Path(path).read_bytes() for path in sides.old)
    new = b"".join(Path(path).read_bytes() for path in sides.new)
    extra = b"".join(Path(part).read_bytes() for part in packs[4].parts)
    script = (list(table[0]), list(packs[0].files(table[0][0])))
    both = [
        script,
        *(
            (list(row), list(stream.files(row[0])))
            for stream, row in zip(packs[1:4], table[1:4], strict=True)
        ),
        _written(base / "primed.extra", extra, old),
    ]
    control = b"".join(operations.encode(matching.operations([], len(new))))
    alone = [
        script,
        _written(base / "alone.control", control, b""),
        ([STORED, 0, 0], []),
        ([STORED, 0, 0], []),
        _written(base / "alone.extra", new, old),
    ]
    best = min((both, alone), key=lambda form: sum(row[2] for row, _ in form))
    return [row for row, _ in best], [path for _, paths in best for path in paths]


def _written(path: Path, data: bytes, prefix: bytes) -> tuple[Row, list[str]]:
    """Return the row and the file of a stream; without a prefix, it is as it is."""
    codec = STORED
    packed = data
    if prefix and data:
        frame = compress.primed(data, prefix)
        if len(frame) < len(data):
            codec, packed = ZSTD, frame
    path.write_bytes(packed)
    return [codec, len(data), len(packed)], [str(path)]
