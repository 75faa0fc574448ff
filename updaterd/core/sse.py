"""Server-Sent Events: bytes in, events out. WHATWG HTML 9.2.5 and 9.2.6.

Sans-IO: the caller owns the socket. `Parser.feed` takes the body in pieces of any
size, cut anywhere, and gives the same events however it was cut.

Fast where streams are usual: a chunk is cut at its last line end and decoded once
(no UTF-8 sequence spans a line end), then split into blocks, and a block or a run
of lines that are all `data: ...` is taken whole, without a loop over its lines.
"""

from dataclasses import dataclass
from typing import NamedTuple

from updaterd.errors import TransientError

MAX_RETRY_MS = 86_400_000
"""Longest reconnection time taken from a stream: a day."""

_BOM = b"\xef\xbb\xbf"
_MANY_PIECES = 1024
_RETRY_DIGITS = 9


class Event(NamedTuple):
    """One dispatched event (9.2.6)."""

    id: str
    """Last event ID at dispatch; "" when the stream has set none."""
    event: str
    """Type; "message" when the block named none."""
    data: str
    """The `data` lines, joined by newlines."""
    retry: int | None = None
    """Reconnection time set within this block, milliseconds; None when not set."""
    identified: bool = False
    """Whether this very block set the id. An inherited id identifies nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one stream may make the parser hold.

    Memory stays below about ten times `event`, plus ten times the chunk given.

    Raises:
        ValueError: unless 0 < line <= event.
    """

    line: int = 2**20
    """Bytes of one line (field or comment), without its end."""
    event: int = 2**22
    """Characters of one event's data."""

    def __post_init__(self) -> None:
        if not 0 < self.line <= self.event:
            raise ValueError(f"need 0 < line <= event, got {self}")


class LimitError(TransientError):
    """The stream sent a line or an event larger than allowed: drop it, reconnect."""

    code = "stream_limit"

    def __init__(self, what: str, events: tuple[Event, ...] = ()) -> None:
        super().__init__(
            what,
            means="the feed sends something that is no update event",
            do="check the feed's address, or tell whoever publishes to it",
        )
        self.events = events
        """The events of the same chunk that were complete before the offence."""


class Parser:
    """The event stream interpretation of 9.2.6, for one connection.

    An event that the end of the stream leaves unfinished is never given out
    ("discarded"): drop the parser with its connection.
    """

    def __init__(
        self, *, last_event_id: str = "", limits: Limits | None = None
    ) -> None:
        self.last_event_id = last_event_id
        """What to send as `Last-Event-ID` when reconnecting; "" for nothing."""
        self.retry_ms: int | None = None
        """Reconnection time of the stream, clamped to `MAX_RETRY_MS`."""
        self._limits = limits or Limits()
        self._failed = ""
        self._tail = bytearray()  # a line whose end has not come
        self._skip_lf = False  # the last chunk ended in a CR, already taken as an end
        self._at_start = True  # a BOM may still come
        # the block whose blank line has not come
        self._pieces: list[str] = []
        self._size = 0
        self._type = ""
        self._id: str | None = None
        self._block_retry: int | None = None

    def feed(self, chunk: bytes) -> list[Event]:  # noqa: C901 # one hot path, told in order
        """Take the next bytes of the body; return the events they complete.

        Args:
            chunk: any number of bytes, cut anywhere.

        Raises:
            LimitError: a line or event beyond the limits; its `events` were
                complete before. The parser takes nothing more.
        """
        if self._failed:
            raise LimitError(self._failed)
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        has_cr = b"\r" in chunk
        cut = chunk.rfind(b"\n") + 1
        if has_cr:
            cut = max(cut, chunk.rfind(b"\r") + 1)
        if not cut:
            self._tail += chunk
            if len(self._tail) > self._limits.line:
                self._fail([], "a line")
            return []
        block = chunk[:cut]
        if self._tail:
            block = bytes(self._tail) + block
        self._tail = bytearray(chunk[cut:])
        if has_cr:
            # A CR ends its line at once; an LF that follows belongs to it (9.2.5).
            self._skip_lf = chunk.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        too_long = False
        if len(block) > self._limits.line:
            block, too_long = self._cut_at_long_line(block)
        if self._at_start:
            self._at_start = False
            block = block.removeprefix(_BOM)
        events: list[Event] = []
        self._read(block.decode("utf-8", "replace"), events)
        if too_long or len(self._tail) > self._limits.line:
            self._fail(events, "a line")
        return events

    def _read(self, text: str, events: list[Event]) -> None:
        """Take complete lines: `text` is empty or ends in a newline."""
        *blocks, rest = text.split("\n\n")
        between = not self._pieces and self._id is None and not self._type
        between = between and self._block_retry is None
        add = events.append
        for block in blocks:
            if between and block.startswith("data: ") and "\n" not in block:
                last_id = self.last_event_id
                add(tuple.__new__(Event, (last_id, "message", block[6:], None, False)))
                continue
            if block.startswith("\n"):  # a blank line before the block's lines
                self._dispatch(events)
                block = block[1:]  # noqa: PLW2901 # the rest of the same block
            if block:
                self._take(block, events)
            self._dispatch(events)
            between = True
        if rest.startswith("\n"):
            self._dispatch(events)
            rest = rest[1:]
        if rest:
            self._take(rest[:-1], events)
            if len(self._pieces) > _MANY_PIECES:
                # a str a line costs far more than its characters
                self._pieces = ["\n".join(self._pieces)]

    def _take(self, lines: str, events: list[Event]) -> None:
        """Process non-empty lines, joined by newlines (9.2.6, "process the field")."""
        if lines.startswith("data: ") and lines.count("\n") == lines.count("\ndata: "):
            data = lines[6:].replace("\ndata: ", "\n")
            self._pieces.append(data)
            self._size += len(data) + 1
        else:
            for line in lines.split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "data":
                    self._pieces.append(value)
                    self._size += len(value) + 1
                elif name == "id":
                    if "\0" not in value:
                        self._id = value
                elif name == "event":
                    self._type = value
                elif name == "retry" and value.isascii() and value.isdigit():
                    self._block_retry = self.retry_ms = _clamped(value)
        if self._size > self._limits.event:
            self._fail(events, "an event")

    def _dispatch(self, events: list[Event]) -> None:
        """Act on a blank line (9.2.6, "dispatch the event")."""
        identified = self._id is not None
        if self._id is not None:
            self.last_event_id = self._id
            self._id = None
        if self._pieces:
            pieces = self._pieces
            event = (
                self.last_event_id,
                self._type or "message",
                pieces[0] if len(pieces) == 1 else "\n".join(pieces),
                self._block_retry,
                identified,
            )
            events.append(tuple.__new__(Event, event))
            self._pieces = []
            self._size = 0
        self._type = ""
        self._block_retry = None

    def _cut_at_long_line(self, block: bytes) -> tuple[bytes, bool]:
        """Return the lines before the first too long one, and whether there is one."""
        start = 0
        limit = self._limits.line
        while (end := block.find(b"\n", start)) >= 0:
            if end - start > limit:
                return block[:start], True
            start = end + 1
        return block, False

    def _fail(self, events: list[Event], what: str) -> None:
        limit = self._limits.line if what == "a line" else self._limits.event
        self._failed = f"the stream sent {what} of more than {limit} bytes"
        self._tail.clear()
        self._pieces = []
        raise LimitError(self._failed, tuple(events))


def _clamped(digits: str) -> int:
    """Return the reconnection time; int() would be slow, or refuse, on thousands."""
    significant = digits.lstrip("0")
    if len(significant) > _RETRY_DIGITS:
        return MAX_RETRY_MS
    return min(int(significant or "0"), MAX_RETRY_MS)
