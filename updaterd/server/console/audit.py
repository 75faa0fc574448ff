# SPDX-License-Identifier: Apache-2.0
"""What was done and decided: the lines of `audit.jsonl`, read from its end.

The file belongs to whoever holds the online key; here it is only shown.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST_BYTES = 256 << 10
MOST_LINES = 100
_LONGEST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One line, as text: whatever its values are, they are only shown.

    Attributes:
        at: when.
        actor: who or what did it.
        act: what was done.
        subject: product, channel and version.
        why: the reason.
        counts: names and numbers that it was decided on.
    """

    at: str = "-"
    actor: str = "-"
    act: str = "-"
    subject: str = "-"
    why: str = ""
    counts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some lines, the newest first.

    Attributes:
        lines: a line that is no object is one whose reason is its text.
        older: the offset below which there are more; None: there are none.
    """

    lines: tuple[AuditLine, ...]
    older: int | None


def read_page(path: Path, until: int | None) -> AuditPage:
    """Return a page of the file.

    Args:
        path: the file.
        until: only what lies before this offset; None: from the end.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = size if until is None else max(0, min(until, size))
        begin = max(0, end - _MOST_BYTES)
        file.seek(begin)
        data = file.read(end - begin)
    at, rows = begin, []
    for raw in data.splitlines(keepends=True):
        rows.append((at, raw))
        at += len(raw)
    if begin:
        rows = rows[1:]  # its beginning lies before what was read
    rows = [(at, raw) for at, raw in rows if raw.endswith(b"\n")][-MOST_LINES:]
    older = rows[0][0] if rows and rows[0][0] > 0 else None
    return AuditPage(tuple(_line(raw) for _, raw in reversed(rows)), older)


def _line(raw: bytes) -> AuditLine:
    text = raw.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return AuditLine(why=text[:_LONGEST])
    names = ("product", "channel", "version")
    subject = " / ".join(_text(value[name]) for name in names if name in value)
    counts = value.get("counts")
    return AuditLine(
        at=_text(value.get("at", "-")).replace("T", " ", 1),
        actor=_text(value.get("who", "-")),
        act=_text(value.get("act", "-")),
        subject=subject or "-",
        why=_text(value.get("why", "")),
        counts=tuple(_flat(counts)),
    )


def _flat(counts: object) -> Iterator[tuple[str, str]]:
    """Yield names and numbers; one inside of another is named after both."""
    for name, value in counts.items() if isinstance(counts, dict) else ():
        if isinstance(value, dict):
            inner = sorted(value.items())
            yield from ((_text(f"{name} {k}"), _text(v)) for k, v in inner)
        else:
            yield _text(name), _text(value)


def _text(value: object) -> str:
    return str(value)[:_LONGEST]
