# SPDX-License-Identifier: Apache-2.0
"""How far a worker is with a download: told to everybody, in a file below /run.

Not in the journal: a commit there waits for the disk. The file is made anew at most
twice in a second, and is gone with the worker; who reads one that a killed worker left
sees that it is old.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from updaterd import durable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_EVERY_S = 0.5
_LONGEST = 4096
_FRESH_S = 30.0


def _file(runtime: Path, product: str) -> Path:
    return runtime / f"progress-{product}.json"


class Published:
    """Tells everybody how far the download of a product is.

    Args:
        runtime: the daemon's directory; where it cannot be written, nothing is told.
        product: whose.
        steady: seconds of a clock that nobody sets.
    """

    def __init__(
        self, runtime: Path, product: str, steady: Callable[[], float]
    ) -> None:
        self._path = _file(runtime, product)
        self._steady = steady
        self._told_at = -_EVERY_S

    def tell(self, done: int, total: int, *, now: float) -> None:
        """Tell it, unless that was told a moment ago.

        Power cut: the file is in /run and gone.
        """
        steady = self._steady()
        if steady - self._told_at < _EVERY_S and done < total:
            return
        self._told_at = steady
        text = json.dumps({"done": done, "total": total, "at": now})
        with suppress(OSError):
            durable.publish_file(self._path, text.encode())

    def end(self) -> None:
        """Take back what was told.

        Power cut: as `tell`.
        """
        with suppress(OSError):
            self._path.unlink()


def read(runtime: Path, product: str, now: float) -> dict[str, Any] | None:
    """Return `done`, `total` and `percent` of a download; None: there is none."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        with open(os.open(_file(runtime, product), flags), "rb") as file:
            document = json.loads(file.read(_LONGEST))
        done, total, at = (
            int(document["done"]),
            int(document["total"]),
            float(document["at"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not 0 <= done <= total or total == 0 or abs(now - at) > _FRESH_S:
        return None
    return {"done": done, "total": total, "percent": done * 100 // total}
