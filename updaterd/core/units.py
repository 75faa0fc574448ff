# SPDX-License-Identifier: Apache-2.0
"""Durations and sizes as people write them: "7d", "30min", "500MiB", "5MiB/s".

Durations take systemd.time(7)'s units up to weeks; sizes are powers of 1024 with
`i`, of 1000 without (IEC 80000-13).
"""

import re

from updaterd.errors import MalformedError

_SECONDS = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_BYTES = {
    "": 1, "B": 1,
    "kB": 10**3, "KB": 10**3, "K": 2**10, "KiB": 2**10,
    "MB": 10**6, "M": 2**20, "MiB": 2**20,
    "GB": 10**9, "G": 2**30, "GiB": 2**30,
    "TB": 10**12, "T": 2**40, "TiB": 2**40,
}  # fmt: skip
_PART = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]*)", re.ASCII)

LATEST = 250_000_000_000
"""Unix seconds, in the year 9892: a later time could not be shown to anybody."""


def parse_duration(text: str) -> float:
    """Return seconds; parts add up ("1h 30min"), a bare number is seconds.

    Raises:
        MalformedError: it is not a duration.
    """
    total, at = 0.0, 0
    while at < len(text) and (match := _PART.match(text, at)):
        unit = match[2] or "s"
        if unit not in _SECONDS:
            break
        total += float(match[1]) * _SECONDS[unit]
        at = match.end()
    if not text.strip() or text[at:].strip():
        raise MalformedError(
            f"{text!r:.80} is not a duration", do='write "90s", "30min", "6h", "7d"'
        )
    return total


def parse_bytes(text: str) -> int:
    """Return a number of bytes.

    Raises:
        MalformedError: it is not a size.
    """
    match = _PART.fullmatch(text.strip())
    if match is None or match[2] not in _BYTES:
        raise MalformedError(f"{text!r:.80} is not a size", do='write "500MiB"')
    return int(float(match[1]) * _BYTES[match[2]])


def parse_rate(text: str) -> int:
    """Return bytes per second, at least 1 KiB/s.

    Raises:
        MalformedError: it is not a rate, or so slow that no download would end.
    """
    size, slash, per = text.strip().partition("/")
    if not slash or per.strip() != "s":
        raise MalformedError(f"{text!r:.80} is not a rate", do='write "5MiB/s"')
    rate = parse_bytes(size)
    if rate < 2**10:
        raise MalformedError(f"{text!r:.80} is slower than 1 KiB/s")
    return rate


def format_bytes(count: float) -> str:
    """Return a size for a person: "3.4 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Return a duration for a person, two units at most: "2h 5min"."""
    rest = round(abs(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
