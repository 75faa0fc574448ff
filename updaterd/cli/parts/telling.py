# SPDX-License-Identifier: Apache-2.0
"""Who is told what is being done: a terminal, a log, other programs, or nobody."""

import sys
from typing import TYPE_CHECKING, Any

from updaterd.cli.parts.options import wall_clock

if TYPE_CHECKING:
    from updaterd.pipeline.machine import Teller
    from updaterd.system.progress import Published


def teller(*, as_json: bool) -> "Teller":
    """Return who tells what is being done: a terminal, a log, or nobody."""
    if as_json:
        from updaterd.pipeline.machine import Silent

        return Silent()
    return _Bar() if sys.stderr.isatty() else _Lines()


class Told:
    """Tells whom it should, and everybody how far a download is."""

    def __init__(self, teller: "Teller", published: "Published") -> None:
        self._teller = teller
        self._published = published

    def say(self, line: str) -> None:
        """See `pipeline.machine.Teller`."""
        self._teller.say(line)

    def progress(self, step: str, done: int, total: int) -> None:
        """See `pipeline.machine.Teller`."""
        self._teller.progress(step, done, total)
        self._published.tell(done, total, now=wall_clock())


class _Lines:
    """Tells in plain lines; of long steps, only that they began."""

    def __init__(self) -> None:
        self._step = ""

    def say(self, line: str) -> None:
        from updaterd.core.text import printable

        print(f"  {printable(line)}", flush=True)

    def progress(self, step: str, done: int, total: int) -> None:
        if step != self._step:
            self._step = step
            self.say(f"{step}: {total} bytes")
        del done


class _Bar(_Lines):
    """Tells in lines, and long steps as a bar that goes away when they are done."""

    def __init__(self) -> None:
        super().__init__()
        from tqdm import tqdm

        self._tqdm = tqdm
        self._bar: Any = None  # tqdm's own type is generic over what it iterates

    def say(self, line: str) -> None:
        self._end()
        super().say(line)

    def progress(self, step: str, done: int, total: int) -> None:
        if step != self._step or self._bar is None:
            self._end()
            self._step = step
            self._bar = self._tqdm(
                total=total, desc=f"  {step}", unit="B", unit_scale=True, leave=False
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._step = None, ""
