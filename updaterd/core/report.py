# SPDX-License-Identifier: Apache-2.0
"""A report: what a machine says about the end of a deployment. Codes and numbers only.

Made by the machine's journal, read by the report server: both from here. A report is
evidence, never authority: nothing in it installs, widens or names a file. What each
field is, and who sees it, stands in docs/privacy.md; a test holds the two together.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import DECODER, MAX_INTEGER, check_depth
from updaterd.errors import MalformedError

SCHEMA = 1
MOST = 64
"""Reports in one request."""
MAX_BODY = 128 * 1024
"""Bytes of one request: 64 reports of the largest size that a machine makes."""
FLEET_PATH = "/v1/fleet"
CHANNEL_PATH = "/v1/fleet/products/{product}/channels/{channel}"
RELEASE_PATH = "/v1/fleet/products/{product}/channels/{channel}/releases/{version}"
"""Where a server of reports says what they come to."""
_SPARE = 8 * MOST  # of members that a newer machine may send
MOST_TAGS = 8
MAX_TAG = 32
LONGEST_PAUSE_S = 7 * 3600.0
"""Seconds for which a machine puts off sending, at most."""
LONGEST_S = 400 * 86400.0
"""Seconds that a part of an update may take, as far as anybody believes it."""

OUTCOMES = (
    "installed",
    "rolled_back",
    "rejected",
    "failed",
    "delta_refused",
    "current",
)
TRIGGERS = ("event", "poll", "boot", "manual", "rollback")
PARTS = ("seen_s", "fetched_s", "staged_s", "activated_s", "ended_s")
"""The clock of an update: when each part was over, seconds after the event came."""


class Pattern:
    """A regular expression that is compiled when it is first used.

    Machines load this module at each look, and read no report.
    """

    __slots__ = ("_compiled", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._compiled: re.Pattern[str] | None = None

    def fullmatch(self, text: str) -> re.Match[str] | None:
        """Return the match of a whole text, or None."""
        if self._compiled is None:
            self._compiled = re.compile(self.pattern, re.ASCII)
        return self._compiled.fullmatch(text)


UUID = Pattern(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MACHINE = Pattern(r"[0-9a-f]{32}")
NAME = Pattern(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
VERSION = Pattern(r"[A-Za-z0-9][A-Za-z0-9.+_~-]{0,63}")
TAG = Pattern(r"[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?")
WORD = Pattern(r"[a-z0-9_]{0,64}")
_DIGITS = re.compile(r"[0-9]{13}(?=-[0-9]+$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report; a field that is not known is None, and is not sent.

    Attributes:
        id: of this report, random: a server counts it once.
        machine: of this machine in this repository, and in no other.
        product: which application.
        channel: the one that it follows here.
        platform: the machine's, as publishers name it.
        updater: version of updaterd.
        tags: what the owner wrote into `[reports]`.
        outcome: one of `OUTCOMES`.
        version: the release that this is about.
        seq: its place in the order.
        from_version: the release that was installed before.
        from_seq: its place in the order.
        trigger: what started it, one of `TRIGGERS`.
        code: why, or what failed; docs/codes.md has them all.
        event_ms: when the release was announced, by the feed's clock.
        seen_s: until the machine had decided to install it.
        fetched_s: until what it needs was fetched.
        staged_s: until its tree was whole.
        activated_s: until it ran, on trial.
        ended_s: until it was over.
        bytes_fetched: what came over the network for it.
        bytes_full: what its full bundle would have been.
        path: how it was built: of deltas, or of a full bundle.
        lost: reports that this machine dropped since the one before.
    """

    id: str
    machine: str
    product: str
    channel: str
    platform: str
    updater: str
    tags: tuple[str, ...] = ()
    outcome: str
    version: str
    seq: int
    from_version: str | None = None
    from_seq: int | None = None
    trigger: str
    code: str = ""
    event_ms: int | None = None
    seen_s: float | None = None
    fetched_s: float | None = None
    staged_s: float | None = None
    activated_s: float | None = None
    ended_s: float | None = None
    bytes_fetched: int = 0
    bytes_full: int = 0
    path: str = ""
    lost: int = 0

    def encode(self) -> bytes:
        """Return the report as it goes over the wire, byte for byte."""
        members: dict[str, object] = {"schema": SCHEMA}
        for name in FIELDS:
            value = getattr(self, name)
            if value not in (None, "", 0, ()) or name in ALWAYS:
                members[name] = value
        return json.dumps(members, separators=(",", ":")).encode()


FIELDS = tuple(field.name for field in fields(Report))
ALWAYS = frozenset({
    *("id", "machine", "product", "channel", "platform", "updater"),
    *("outcome", "version", "seq", "trigger"),
})


def join(bodies: list[bytes]) -> bytes:
    """Return the request that carries these reports."""
    return b"[" + b",".join(bodies) + b"]"


class Moment(NamedTuple):
    """A moment by two clocks: Unix seconds, and seconds that never jump."""

    at: float
    steady: float | None


def meant(at: float, now: float) -> float:
    """Return a moment before which nothing is due, where it can have been meant.

    One that is further ahead than any pause was set by a clock that was ahead, and has
    been put right: it would hold up reports for as long as that clock was wrong.

    Returns:
        0, long ago, in place of such a one.
    """
    return at if at <= now + LONGEST_PAUSE_S else 0.0


def elapsed(since: Moment | None, until: Moment | None) -> float | None:
    """Return the seconds between two moments; None where nobody can know.

    The steady clock counts, where the wall clock agrees with it: it starts anew with
    each boot, and a clock that was set in between tells nothing about either.
    """
    if since is None or until is None or since.steady is None or until.steady is None:
        return None
    steady = until.steady - since.steady
    if steady < 0 or abs((until.at - since.at) - steady) > 2.0 + 0.01 * steady:
        return None
    return round(steady, 3)


def announced_ms(event_id: str | None) -> int | None:
    """Return when an event was announced, by its id; None for a foreign feed's."""
    match = _DIGITS.search((event_id or "").rpartition(":")[2])
    return int(match[0]) if match else None


# ---- reading: what comes from anybody


def _text(pattern: Pattern) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and pattern.fullmatch(value) is not None


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_INTEGER


def _seconds(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value <= LONGEST_S


def _tags(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) <= MOST_TAGS
        and all(type(tag) is str and TAG.fullmatch(tag) for tag in value)
    )


_name, _version, _word = _text(NAME), _text(VERSION), _text(WORD)
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_text(UUID), "a UUID in lower case"),
    "machine": (_text(MACHINE), "32 hexadecimal digits"),
    "product": (_name, "a name"),
    "channel": (_name, "a name"),
    "platform": (_name, "a name"),
    "updater": (_version, "a version"),
    "tags": (_tags, f"at most {MOST_TAGS} words of a-z, 0-9, '-' and '_'"),
    "outcome": (OUTCOMES.__contains__, f"one of {', '.join(OUTCOMES)}"),
    "version": (_version, "a version"),
    "seq": (_whole, "a whole number"),
    "from_version": (_version, "a version"),
    "from_seq": (_whole, "a whole number"),
    "trigger": (TRIGGERS.__contains__, f"one of {', '.join(TRIGGERS)}"),
    "code": (_word, "a code"),
    "event_ms": (_whole, "milliseconds"),
    **dict.fromkeys(PARTS, (_seconds, f"seconds, at most {LONGEST_S:.0f}")),
    "bytes_fetched": (_whole, "a whole number"),
    "bytes_full": (_whole, "a whole number"),
    "path": (_word, "a word"),
    "lost": (_whole, "a whole number"),
}


def is_tag(text: str) -> bool:
    """Tell whether a text can be a tag."""
    return TAG.fullmatch(text) is not None


def parse_all(body: bytes) -> list[Report]:
    """Return the reports of a request.

    Unknown members are ignored: a newer machine may send some.

    Raises:
        MalformedError: too large, not JSON, or a field that is not what it must be.
    """
    if len(body) > MAX_BODY:
        raise MalformedError(
            f"the reports have {len(body)} bytes, the limit is {MAX_BODY}",
            code="too_large",
        )
    if body.count(b"{") + body.count(b"[") > 2 * MOST + 1 + _SPARE:
        raise MalformedError(
            f"the reports hold more than {MOST} objects", code="too_large"
        )
    try:
        text = body.decode("utf-8")
        check_depth(text, "the reports")
        value = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"the reports are not valid JSON: {error}") from error
    if not isinstance(value, list) or not value:
        raise MalformedError("the reports are not an array of some")
    if len(value) > MOST:
        raise MalformedError(
            f"{len(value)} reports came at once, the limit is {MOST}", code="too_large"
        )
    return [_read(item, index) for index, item in enumerate(value)]


def _read(item: object, index: int) -> Report:
    if not isinstance(item, dict):
        raise MalformedError(f"report {index} is not an object")
    if item.get("schema") != SCHEMA:
        raise MalformedError(
            f"report {index} has a schema that this server does not read",
            do="update the server",
            code="newer_schema",
        )
    return Report(**_members(item, index))


def _members(item: Mapping[str, object], index: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, (check, expected) in _CHECKS.items():
        value = item.get(name)
        if value is None:
            if name in ALWAYS:
                raise MalformedError(f"report {index}: {name!r} is missing")
            continue
        try:
            good = check(value)
        except TypeError:  # an array is no key of a set
            good = False
        if not good:
            raise MalformedError(f"report {index}: {name!r} must be {expected}")
        members[name] = value
    if "tags" in members:
        members["tags"] = tuple(sorted(set(members["tags"])))
    return members
