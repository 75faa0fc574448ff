# SPDX-License-Identifier: Apache-2.0
"""One log line a kind and minute, with a count: what strangers cause fills no disk."""

import asyncio
from dataclasses import field

from updaterd import log
from updaterd.core.dataclass import dataclass

_MOST_KINDS = 32  # at once; who invents more shares one line for each event name


@dataclass(slots=True)
class _Held:
    """Lines of one kind since the last that was written."""

    level: str
    event: str
    timer: asyncio.TimerHandle
    times: int = 0
    fields: dict[str, object] = field(default_factory=dict)


class Repeats:
    """Writes the first line of a kind at once, and the rest of its minute as one.

    That one has the newest line's fields, and `times`: how many it stands for. For
    use within a running event loop.

    Args:
        minute_s: for how long lines are held back.
    """

    def __init__(self, *, minute_s: float = 60.0) -> None:
        self._log = log.get()
        self._minute_s = minute_s
        self._held: dict[tuple[str, str], _Held] = {}

    def info(self, event: str, *, alike: str, **fields: object) -> None:
        """Write a line, now or with the others like it when the minute is over.

        Args:
            event: the event's name in the log.
            alike: with `event`, what makes two lines repetitions of each other; not
                for a stranger to choose freely.
            fields: of the line.
        """
        self._take("info", event, alike, fields)

    def warning(self, event: str, *, alike: str, **fields: object) -> None:
        """See `info`."""
        self._take("warning", event, alike, fields)

    def error(self, event: str, *, alike: str, **fields: object) -> None:
        """See `info`."""
        self._take("error", event, alike, fields)

    def _take(
        self, level: str, event: str, alike: str, fields: dict[str, object]
    ) -> None:
        key = (event, alike)
        if key not in self._held and len(self._held) >= _MOST_KINDS:
            key = (event, "")
        held = self._held.get(key)
        if held is not None:
            held.times += 1
            held.level, held.fields = level, fields
            return
        getattr(self._log, level)(event, **fields)
        self._held[key] = _Held(level, event, self._later(key))

    @property
    def waiting(self) -> int:
        """How many kinds have their minute running."""
        return len(self._held)

    def close(self) -> None:
        """Write what was held back."""
        for held in self._held.values():
            held.timer.cancel()
            self._write(held)
        self._held.clear()

    def _later(self, key: tuple[str, str]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._minute_s, self._turn, key)

    def _turn(self, key: tuple[str, str]) -> None:
        held = self._held[key]
        if not held.times:
            del self._held[key]
            return
        self._write(held)
        held.times, held.fields = 0, {}
        held.timer = self._later(key)

    def _write(self, held: _Held) -> None:
        if held.times:
            getattr(self._log, held.level)(held.event, **held.fields, times=held.times)
