# SPDX-License-Identifier: Apache-2.0
"""Which loops apply a delta: the compiled ones, or those in Python.

Both have the same names: `decode` and `check` make a `Block` of operations of its
stored form, `Concatenation` is the old tree, `Sparse` and `Dense` are diffs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


_prepared: list[ModuleType] = []


def best() -> ModuleType:
    """Return the compiled loops, where updaterd was built with a compiler."""
    if _prepared:
        return _prepared[0]
    try:
        from updaterd.artifact.apply import compiled  # noqa: PLC0415 - one of the two
    except ImportError:
        from updaterd.artifact.apply import interpreted  # noqa: PLC0415 - one of the two

        return interpreted
    return compiled


def prepare() -> None:
    """Import and open what the loops will need: in the cage nothing can be."""
    _prepared.append(best())
    if _prepared[0].__name__.endswith("interpreted"):
        import mmap  # noqa: F401, PLC0415 - for long files
        import zlib  # noqa: F401, PLC0415 - as above

        from updaterd.artifact.apply import sources  # noqa: PLC0415 - as above

        sources.watch_memory()
