# SPDX-License-Identifier: Apache-2.0
"""Programs whose bytes stayed in place: their references did, too."""

from collections.abc import Iterator, Sequence

from updaterd.release.bundles.packing.reading import Range, whole

_PIECE = 1 << 18


def differing(old: Sequence[Range], new: Range, most: int) -> int:
    """Return in how many bytes the nearest of old ranges differs, place by place.

    Args:
        old: those to compare with; only ones of the same length are.
        new: the bytes.
        most: whatever is more, or cannot be compared, counts as one more.

    Raises:
        BrokenError: a file has become shorter.
        OSError: the disk refused.
    """
    alike = (part for part in old if part[2] == new[2])
    return min((_count(part, new, most) for part in alike), default=most + 1)


def _count(old: Range, new: Range, most: int) -> int:
    count = 0
    for before, after in zip(_pieces(old), _pieces(new), strict=True):
        if before != after:
            mask = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
            count += len(after) - mask.to_bytes(len(after), "big").count(0)
            if count > most:
                return most + 1
    return count


def _pieces(part: Range) -> Iterator[bytes]:
    path, offset, length = part
    for at in range(0, length, _PIECE):
        yield whole([(path, offset + at, min(_PIECE, length - at))])
