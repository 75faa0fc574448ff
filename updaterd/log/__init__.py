# SPDX-License-Identifier: Apache-2.0
"""What happened, as one event name and its fields, to wherever this process logs.

    from updaterd import log
    log.configure()                     # once, in the command
    log.get().info("release_installed", product="acme", release="1.1.0")

- under systemd: the journal, with a field for each key (`journalctl
  UPDATERD_EVENT=release_installed UPDATERD_PRODUCT=acme`);
- elsewhere: one human line on stderr, or a JSON line when asked.

docs/log-events.md lists every event; a test holds the list and the code together.
Secrets and control characters never get further than here. Logging never raises and
never waits: what the journal does not take goes to stderr, or is counted and told.
"""

import logging
import os
import re
import socket
import sys
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from updaterd.core.text import printable

# structlog loads its development console, and that loads whichever of these it
# finds: 5 MB in a daemon that lives on other people's machines.
_UNWANTED = ("rich", "better_exceptions", "twisted")
_hidden = [name for name in _UNWANTED if name not in sys.modules]
sys.modules.update(cast("dict[str, ModuleType]", dict.fromkeys(_hidden)))
try:
    import structlog
finally:
    for _name in _hidden:
        del sys.modules[_name]

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Stream = Literal["auto", "journal", "human", "json"]
Level = Literal["debug", "info", "warning", "error"]

JOURNAL = "/run/systemd/journal/socket"
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_LONGEST_FIELD = 16_000

_SECRET_KEY = re.compile(
    r"authori[sz]ation|token|passw|secret|cookie|credential|private|api_?key"
    r"|headers$",
    re.IGNORECASE,
)
_MAYBE_SECRET = re.compile(r"[\s=:]")  # none of the patterns does without
_SECRET_TEXT = (
    # user:password@host of a URL
    (re.compile(r"(?<=://)[^/\s@?#]+@"), "[hidden]@"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 [hidden]"),
    (
        re.compile(
            r"\b((?:[\w-]*(?:token|secret|password|passwd|signature|api_?key)|sig)"
            r"['\"]?\s*[=:]\s*['\"]?)[^\s&'\",;]+",
            re.IGNORECASE,
        ),
        r"\1[hidden]",
    ),
)


def get() -> "FilteringBoundLogger":
    """Return the logger; `.bind(product=...)` gives one that adds the field."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def configure(
    stream: Stream = "auto",
    level: Level = "info",
    *,
    file: IO[str] | None = None,
    journal: str = JOURNAL,
) -> None:
    """Say where this process logs, and how much. May be called again.

    Args:
        stream: `auto` is the journal when stderr is connected to it, else `human`.
        level: the least important level that is kept.
        file: where lines go; stderr by default.
        journal: the journal's socket.
    """
    out = file or sys.stderr
    if stream == "auto":
        stream = "journal" if stderr_is_journal() else "human"
    terminal = out.isatty()
    sink: _Lines | _Journal
    sink = lines = _Lines(out)
    last: Callable[..., Any]
    if stream == "journal":
        sink, last = _Journal(journal, fallback=lines), _fields
    elif stream == "json":
        last = structlog.processors.JSONRenderer(sort_keys=True, default=str)
    else:
        last = _human
    stamp = structlog.processors.TimeStamper(
        fmt="%H:%M:%S" if stream == "human" and terminal else "iso",
        utc=not terminal,
        key="time",
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *(() if stream == "journal" else (stamp,)),
            structlog.processors.format_exc_info,
            _clean,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    _adopt_stdlib()


def redact(text: str) -> str:
    """Return `text` without the passwords and tokens that can be told as such."""
    if not _MAYBE_SECRET.search(text):
        return text
    for pattern, instead in _SECRET_TEXT:
        text = pattern.sub(instead, text)
    return text


def stderr_is_journal() -> bool:
    """Tell by JOURNAL_STREAM=device:inode, as systemd.exec(5) says to."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _clean(_: "WrappedLogger", __: str, event: "EventDict") -> "EventDict":
    """Drop secrets and empty fields; make every value text or a plain number."""
    return {
        key: value
        for key, raw in event.items()
        if (value := _plain(key, raw)) is not None
    }


@lru_cache(256)  # the names are few, and searched on every line
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _plain(key: str, value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if _is_secret(key):
        return "[hidden]"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    elif isinstance(value, MutableMapping):
        value = {k: _plain(str(k), v) for k, v in value.items()}
    elif isinstance(value, (tuple, list, set, frozenset)):
        value = ", ".join(str(_plain(key, item)) for item in value)
    text = redact(str(value)[: 2 * _LONGEST_FIELD])
    if key == "exception":  # the one field of several lines
        return "\n".join(printable(line) for line in text.splitlines()[-60:])
    return printable(text, longest=_LONGEST_FIELD)


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and not any(c in text for c in " \t\"'=")
    return text if plain else '"' + text.replace('"', '\\"') + '"'


def _message(event: "EventDict") -> str:
    name = event["event"]
    rest = (
        f"{key}={_quoted(value)}"
        for key, value in event.items()
        if key not in {"event", "level", "time", "exception"}
    )
    return " ".join((str(name), *rest))


def _human(_: "WrappedLogger", __: str, event: "EventDict") -> str:
    level = event["level"]
    line = f"{event['time']} {level:<7} {_message(event)}"
    return f"{line}\n{event['exception']}" if "exception" in event else line


def _fields(
    _: "WrappedLogger", __: str, event: "EventDict"
) -> tuple[tuple[dict[str, str]], dict[str, Any]]:
    """Return the journal's fields; keys become UPDATERD_*, the level PRIORITY."""
    fields = {
        "MESSAGE": _message(event),
        "PRIORITY": str(_PRIORITY.get(event["level"], 6)),
        "SYSLOG_IDENTIFIER": "updaterd",
    }
    for key, value in event.items():
        if key != "level":
            name = re.sub(r"[^A-Z0-9]", "_", key.upper())[:50]
            fields[f"UPDATERD_{name}"] = str(value)
    return (fields,), {}


class _Lines:
    """Lines on a stream; a stream that is gone or full does not stop the daemon."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def msg(self, message: str) -> None:
        try:
            self._out.write(message + "\n")
            self._out.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = msg


class _Journal:
    """The journal's native protocol: one datagram an entry, fields by name.

    https://systemd.io/JOURNAL_NATIVE_PROTOCOL
    """

    def __init__(self, address: str, *, fallback: _Lines) -> None:
        self._address = address
        self._fallback = fallback
        self._lost = 0
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        )
        self._socket.setblocking(False)

    def __del__(self) -> None:
        self._socket.close()  # configured anew: structlog held the last reference

    def msg(self, fields: dict[str, str]) -> None:
        if self._lost:
            fields = {**fields, "UPDATERD_LOST_BEFORE": str(self._lost)}
        try:
            self._socket.sendto(_datagram(fields), self._address)
        except BlockingIOError:
            self._lost += 1  # journald is behind; the next entry tells how many
        except OSError:
            priority = fields["PRIORITY"]  # sd-daemon(3): <N> is the level of a line
            self._fallback.msg(f"<{priority}>{fields['MESSAGE']}")
        else:
            self._lost = 0

    debug = info = warning = error = critical = msg


def _datagram(fields: dict[str, str]) -> bytes:
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            size = len(data).to_bytes(8, "little")
            parts.append(name.encode() + b"\n" + size + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class _Bridge(logging.Handler):
    """Warnings of the libraries (asyncio, httpx) become events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = "error" if record.levelno >= logging.ERROR else "warning"
            getattr(get(), level)(
                "library_message",
                source=record.name,
                text=record.getMessage(),
                exc_info=record.exc_info,
            )
        except Exception:  # noqa: BLE001 # a log line never ends the daemon
            self.handleError(record)


def _adopt_stdlib() -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.addHandler(_Bridge(logging.WARNING))
