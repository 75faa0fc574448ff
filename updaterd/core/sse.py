# SPDX-License-Identifier: Apache-2.0
"""Server-Sent Events: bytes in, events out. WHATWG HTML 9.2.5 and 9.2.6.

Sans-IO: the caller owns the socket. `Parser.feed` takes the body in pieces of any
size, cut anywhere, and gives the same events however it was cut.

Fast where streams are usual: a chunk is cut at its last blank line and decoded once
(no UTF-8 sequence spans a line end), then one regular expression cuts it into blocks.
What it finds in the usual form is an event already; a run of lines that are all
`data: ...` is taken without a loop.
"""

import codecs
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from updaterd.core.dataclass import dataclass
from updaterd.errors import TransientError

MAX_RETRY_MS = 86_400_000
"""Longest reconnection time taken from a stream: a day."""

_Finder = Callable[[str, int], list[Any]]
_new_event = tuple.__new__  # NamedTuple's own takes three times as long

_LF, _CR = b"\n\r"  # an int is found in bytes ten times as fast as a bytes
_HOLD = 4096
_MANY_PIECES = 1024
_SMALL_PIECE = 256
_STEP = 2**14  # large copies, and a call a chunk, are slow
_RETRY_DIGITS = 9

# Possessive throughout (`++`): whatever the stream, nothing is looked at twice.
_BLOCKS = r"""
    (?: :[^\n]*+\n\n )*+                   # heartbeats: comments on their own
    (?:
        (?: id:[ ]([^\0\n]LENGTH)\n )?+      # a block in the usual form,
        (?: event:[ ]([^\n]++)\n )?+         # with one line of data
        data:[ ]([^\n]++)\n\n
    |
        ( (?: [^\n]++\n )++ \n*+ | \n++ )   # any other, with its blank lines
    |
        \Z
    )
"""


@cache
def _blocks(longest_id: int) -> "_Finder":
    """Return what cuts a text into blocks; an id that is too long is no usual form."""
    length = "++" if not longest_id else f"{{1,{longest_id}}}+"
    pattern = re.compile(_BLOCKS.replace("LENGTH", length), re.VERBOSE)
    return pattern.findall


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
        ValueError: unless 0 < line <= event, and 0 < id.
    """

    line: int = 2**21
    """Bytes of one line (field or comment), without its end."""
    event: int = 2**22
    """Characters of one event's data."""
    id: int | None = None
    """Characters of an id; one that is longer is ignored, as one with a NUL is, and
    the stream is resumed from the id before it. None: as long as its line may be."""

    def __post_init__(self) -> None:
        if not 0 < self.line <= self.event or (self.id is not None and self.id < 1):
            raise ValueError(f"need 0 < line <= event and 0 < id, got {self}")


class LimitError(TransientError):
    """The stream sent a line or an event larger than allowed: drop it, reconnect."""

    code = "stream_limit"

    def __init__(self, message: str, events: tuple[Event, ...] = ()) -> None:
        super().__init__(
            message,
            means="the feed sends something that is not an update event",
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
        self._longest_id = self._limits.id or self._limits.line
        self._blocks = _blocks(self._limits.id or 0)
        self._failed = ""
        self._retry_ms: int | None = None
        # Not looked at yet: a block of at most `_hold` bytes whose blank line has
        # not come; or else a longer line whose end has not come: how long it is,
        # its text, and the bytes that were not decoded yet.
        self._tail = b""
        self._line_size = self._line_settled_at = 0
        self._line: list[str] = []
        self._line_raw: list[bytes] = []
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
        if self._line_size:
            if _LF not in chunk and _CR not in chunk:
                self._line_raw.append(chunk)
                self._line_size += len(chunk)
                if self._line_size > self._line_settled_at:
                    self._settle_line([])
                return []
        elif self._failed:
            raise LimitError(self._failed)
        elif self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        if _CR in chunk:
            # A CR ends its line at once; an LF that follows belongs to it (9.2.5).
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._line_size:
            chunk = self._end_line(chunk)

        body = self._tail + chunk if self._tail else chunk
        # A short unfinished block waits for its rest, as whole blocks are read
        # fastest. Nothing that its blank line has completed ever waits.
        cut = 0
        if not self._open:
            blank = body.rfind(b"\n\n")
            cut = blank + 2 if blank >= 0 else 0
        if self._open or len(body) - cut > self._hold:
            cut = body.rfind(b"\n") + 1
        self._tail = body[cut:]
        events: list[Event] = []
        if cut > self._limits.line:
            self._read_up_to_long_line(body[:cut], events)
        elif cut:
            self._read(self._decode(body[:cut]), events)
        if len(self._tail) > self._hold:
            tail, self._tail = self._tail, b""
            self._line_raw, self._line_size = [tail], len(tail)
            self._settle_line(events)
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

    def _settle_line(self, events: list[Event]) -> None:
        """Decode what has come of a long line."""
        limit = self._limits.line
        if self._line_size > limit:
            self._fail(events, "a line")
        self._line_settled_at = min(self._line_size + _STEP, limit)
        raw = b"".join(self._line_raw)
        text, used = codecs.utf_8_decode(raw, "replace", False)
        self._line_raw = [raw[used:]]
        self._line.append(text)
        if _too_scattered(self._line, self._line_size):
            self._line = ["".join(self._line)]

    def _end_line(self, chunk: bytes) -> bytes:
        """Take the long line, which ends in `chunk`; return what follows it."""
        end = chunk.index(b"\n")
        self._line_raw.append(chunk[:end])
        self._line_size += end
        self._settle_line([])
        pieces = [*self._line, self._line_raw[0].decode("utf-8", "replace")]
        self._line_size, self._line, self._line_raw = 0, [], []
        if pieces[0].startswith("data: "):
            self._at_start = False
            self._open = True
            pieces[0] = pieces[0][6:]
            self._add_data("".join(pieces), [])
        else:
            self._take(self._without_bom("".join(pieces)), [])
        return chunk[end + 1 :]

    def _decode(self, lines: bytes) -> str:
        text = lines.decode("utf-8", "replace")
        return self._without_bom(text) if self._at_start else text

    def _without_bom(self, text: str) -> str:
        if self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        return text

    def _read(self, text: str, events: list[Event]) -> None:
        """Take complete lines.

        Args:
            text: empty, or ending in a newline.
            events: where to add what they complete.
        """
        start = 0
        if self._open and text:
            start = self._finish_open(text, events)
            if start == len(text):
                return
        last = self.last_event_id
        for new_id, kind, data, other in self._blocks(text, start):
            if data:
                if new_id:
                    last = new_id
                event = (last, kind or "message", data, None, new_id != "")
                events.append(_new_event(Event, event))
            elif other:
                self.last_event_id = last
                self._take_block(other, events)
                last = self.last_event_id
        self.last_event_id = last

    def _finish_open(self, text: str, events: list[Event]) -> int:
        """Take the rest of the unfinished block; return where the next one begins."""
        if text.startswith("\n"):
            self._dispatch(events)
            return 1
        if text.rfind("\n\n") < 0:  # twice as fast as find()
            self._take(text[:-1], events)
            return len(text)
        end = text.find("\n\n")
        self._take(text[:end], events)
        self._dispatch(events)
        return end + 2

    def _take_block(self, block: str, events: list[Event]) -> None:
        """Take lines, each with its end, and the blank lines after them, if any."""
        lines = block.rstrip("\n")
        if lines:
            self._take(lines, events)
        if len(block) - len(lines) != 1:
            self._dispatch(events)

    def _take(self, lines: str, events: list[Event]) -> None:
        """Process non-empty lines, joined by newlines (9.2.6, "process the field")."""
        self._open = True
        data = lines.replace("\ndata: ", "\n")
        consumed = len(lines) - len(data)
        if lines[:6] == "data: " and consumed == 6 * data.count("\n"):
            self._add_data(data[6:], events)
        else:
            for line in lines.split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "data":
                    self._add_data(value, events)
                elif name == "id":
                    if "\0" not in value and len(value) <= self._longest_id:
                        self._id = value
                elif name == "event":
                    self._type = value
                elif name == "retry" and value.isascii() and value.isdigit():
                    self._block_retry = self._retry_ms = _clamped(value)

    def _add_data(self, data: str, events: list[Event]) -> None:
        """Take the value of a `data` field, or of several joined by newlines."""
        self._pieces.append(data)
        self._size += len(data) + 1
        if self._size > self._limits.event:
            self._fail(events, "an event")
        if _too_scattered(self._pieces, self._size):
            self._pieces = ["\n".join(self._pieces)]

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

    def _fail(self, events: list[Event], part: str) -> None:
        limit = self._limits.line if part == "a line" else self._limits.event
        self._failed = f"the stream sent {part} of more than {limit} bytes"
        self._tail, self._pieces = b"", []
        self._line_size, self._line, self._line_raw = 0, [], []
        raise LimitError(self._failed, tuple(events))


def _too_scattered(pieces: list[str], size: int) -> bool:
    """Tell when small pieces cost far more than their characters.

    Never twice for the same ones: what was joined is large.
    """
    return len(pieces) > _MANY_PIECES + size // _SMALL_PIECE


def _clamped(digits: str) -> int:
    """Return the reconnection time; int() would be slow, or refuse, on thousands."""
    significant = digits.lstrip("0")
    if len(significant) > _RETRY_DIGITS:
        return MAX_RETRY_MS
    return min(int(significant or "0"), MAX_RETRY_MS)
