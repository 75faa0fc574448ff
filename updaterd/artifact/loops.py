"""Which loops apply a delta: the compiled ones, or those in Python.

Both have the same names: `decode` and `check` make a `Block` of operations of its
stored form, `Concatenation` is the old tree, `Sparse` and `Dense` are diffs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def best() -> ModuleType:
    """Return the compiled loops, where updaterd was built with a compiler."""
    try:
        from updaterd.artifact import compiled  # noqa: PLC0415 - one of the two
    except ImportError:
        from updaterd.artifact import interpreted  # noqa: PLC0415 - one of the two

        return interpreted
    return compiled
