"""Find what of the new bytes is already in the old ones.

bsdiff4 is always there; HDiffPatch (extra `release`) finds better matches, faster
and in a third of the memory, and is used when it is installed. Both are reduced to
operations (length, extra, skip), so the bundle is the same format either way.
"""

import struct
from collections.abc import Callable
from typing import cast

import bsdiff4.core

Operation = tuple[int, int, int]
Matcher = Callable[[bytes, bytes], list[Operation]]

_SIGN = 1 << 63


def bsdiff(old: bytes, new: bytes) -> list[Operation]:
    """Return bsdiff's operations that make `new` from `old`."""
    if not new:
        return []
    if not old:
        return [(0, len(new), 0)]
    control = cast("bytes", bsdiff4.core.diff(old, new)[0])
    return [
        (length, extra, skip if skip < _SIGN else -(skip - _SIGN))
        for length, extra, skip in struct.iter_unpack("<QQQ", control)
    ]
