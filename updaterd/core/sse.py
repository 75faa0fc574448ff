"""Server-Sent Events: bytes in, events out. WHATWG HTML 9.2.5 and 9.2.6.

Sans-IO: the caller owns the socket. `Parser.feed` takes the body in pieces of any
size, cut anywhere, and gives the same events however it was cut.

Fast where streams are usual: a chunk is cut at its last blank line and decoded once
(no UTF-8 sequence spans a line end), then split into blocks. A block in the usual
form is taken at a glance, and a run of lines that are all `data: ...` without a loop.
"""

from dataclasses import dataclass
from typing import NamedTuple

from updaterd.errors import TransientError

MAX_RETRY_MS = 86_400_000
"""Longest reconnection time taken from a stream: a day."""

_new_event = tuple.__new__  # NamedTuple's own takes three times as long

_BOM = b"\xef\xbb\xbf"
_HOLD = 4096
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

    line: int = 2**21
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
        self._limits = limits or Limits()
        self._hold = min(_HOLD, self._limits.line)
        self._failed = ""
        self._retry_ms: int | None = None
        # Not looked at yet: a block of at most `_hold` bytes whose blank line has
        # not come; or else, in parts, a longer line whose end has not come.
        self._tail = b""
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._skip_lf = False  # the last chunk ended in a CR, already taken as an end
        self._at_start = True  # a BOM may still come
        # The lines that were taken of a block whose blank line has not come.
        self._open = False
        self._pieces: list[str] = []
        self._size = 0
        self._type = ""
        self._id: str | None = None
        self._block_retry: int | None = None

    @property
    def retry_ms(self) -> int | None:
        """Reconnection time of the stream, clamped to `MAX_RETRY_MS`; None: not set.

        A `retry` counts as soon as its line has ended, without a blank line.
        """
        lines = self._tail.rfind(b"\n") + 1
        if lines:
            self._read(self._decode(self._tail[:lines]), [])
            self._tail = self._tail[lines:]
        return self._retry_ms

    def feed(self, chunk: bytes) -> list[Event]:  # noqa: C901 # one hot path
        """Take the next bytes of the body; return the events they complete.

        Args:
            chunk: any number of bytes, cut anywhere.

        Raises:
            LimitError: a line or event beyond the limits; its `events` were
                complete before. The parser takes nothing more.
        """
        if self._parts:
            if b"\n" not in chunk and b"\r" not in chunk:
                self._parts.append(chunk)  # a long line grows
                self._parts_size += len(chunk)
                if self._parts_size > self._limits.line:
                    self._fail([], "a line")
                return []
        elif self._failed:
            raise LimitError(self._failed)
        elif self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            # A CR ends its line at once; an LF that follows belongs to it (9.2.5).
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._parts:
            chunk = self._end_long_line(chunk)

        body = self._tail + chunk if self._tail else chunk
        # A short unfinished block waits for its rest, as whole blocks are read
        # fastest. Nothing that its blank line has completed ever waits.
        blank = body.rfind(b"\n\n")
        cut = 0 if blank < 0 else blank + 2
        if self._open or len(body) - cut > self._hold:
            cut = body.rfind(b"\n") + 1
        self._tail = body[cut:]
        events: list[Event] = []
        if cut > self._limits.line:
            self._read_up_to_long_line(body[:cut], events)
        elif cut:
            self._read(self._decode(body[:cut]), events, blocks=blank >= 0)
        if len(self._tail) > self._hold:
            self._parts, self._parts_size = [self._tail], len(self._tail)
            self._tail = b""
            if self._parts_size > self._limits.line:
                self._fail(events, "a line")
        return events

    def _read_up_to_long_line(self, body: bytes, events: list[Event]) -> None:
        """Take complete lines, of which some may be too long."""
        limit = self._limits.line
        start = 0
        while (end := body.find(b"\n", start)) >= 0:
            if end - start > limit:
                self._read(self._decode(body[:start]), events)
                self._fail(events, "a line")
            start = end + 1
        self._read(self._decode(body), events)

    def _end_long_line(self, chunk: bytes) -> bytes:
        """Take the line in `_parts`, which ends in `chunk`; return what follows it."""
        end = chunk.index(b"\n")
        line = b"".join([*self._parts, chunk[:end]])
        self._parts = []
        if len(line) > self._limits.line:
            self._fail([], "a line")
        self._take(self._decode(line), [])
        return chunk[end + 1 :]

    def _decode(self, body: bytes) -> str:
        if self._at_start:
            self._at_start = False
            body = body.removeprefix(_BOM)
        return body.decode("utf-8", "replace")

    def _read(self, text: str, events: list[Event], *, blocks: bool = True) -> None:
        """Take complete lines.

        Args:
            text: empty, or ending in a newline.
            events: where to add what they complete.
            blocks: False when no blank line stands after a line.
        """
        rest = text
        if blocks:
            *whole, rest = text.split("\n\n")
            for block in whole:
                if self._open or not self._take_usual(block, events):
                    if block.startswith("\n"):  # a blank line first
                        self._dispatch(events)
                        block = block[1:]  # noqa: PLW2901 # the rest of the same
                    if block:
                        self._take(block, events)
                    self._dispatch(events)
        if rest.startswith("\n"):
            self._dispatch(events)
            rest = rest[1:]
        if rest:
            self._take(rest[:-1], events)
            if len(self._pieces) > _MANY_PIECES:
                # a str a line costs far more than its characters
                self._pieces = ["\n".join(self._pieces)]

    def _take_usual(self, block: str, events: list[Event]) -> bool:
        """Take a whole block of one `data: ` and maybe `id: ` and `event: ` lines.

        Returns:
            Whether it is one; if not, nothing was done.
        """
        if "\n" not in block and block[:6] == "data: ":
            event = (self.last_event_id, "message", block[6:], None, False)
            events.append(_new_event(Event, event))
            return True
        data = kind = new_id = None
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name == "data" and data is None:
                data = value
            elif name == "id" and value and "\0" not in value:
                new_id = value
            elif name == "event" and value:
                kind = value
            else:
                return False
        if not data:
            return False
        if new_id is not None:
            self.last_event_id = new_id
        event = (
            self.last_event_id,
            kind or "message",
            data,
            None,
            new_id is not None,
        )
        events.append(_new_event(Event, event))
        return True

    def _take(self, lines: str, events: list[Event]) -> None:
        """Process non-empty lines, joined by newlines (9.2.6, "process the field")."""
        self._open = True
        if lines[:6] == "data: " and (
            "\n" not in lines or lines.count("\n") == lines.count("\ndata: ")
        ):
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
                    self._block_retry = self._retry_ms = _clamped(value)
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
            events.append(_new_event(Event, event))
            self._pieces = []
            self._size = 0
        self._type = ""
        self._block_retry = None
        self._open = False

    def _lines(self, body: bytes) -> tuple[bytes, bool]:
        """Return the lines before the first too long one, and whether there is one."""
        limit = self._limits.line
        if len(body) > limit:
            start = 0
            while (end := body.find(b"\n", start)) >= 0:
                if end - start > limit:
                    return body[:start], True
                start = end + 1
        return body, False

    def _fail(self, events: list[Event], what: str) -> None:
        limit = self._limits.line if what == "a line" else self._limits.event
        self._failed = f"the stream sent {what} of more than {limit} bytes"
        self._tail, self._parts, self._pieces = b"", [], []
        raise LimitError(self._failed, tuple(events))


def _clamped(digits: str) -> int:
    """Return the reconnection time; int() would be slow, or refuse, on thousands."""
    significant = digits.lstrip("0")
    if len(significant) > _RETRY_DIGITS:
        return MAX_RETRY_MS
    return min(int(significant or "0"), MAX_RETRY_MS)
