# SPDX-License-Identifier: Apache-2.0
"""What a feed's events say. Hints only: nothing here is believed, or followed.

An event can make a machine look at the signed metadata; it can name no address, no
hash and no version that counts. So reading is strict about what updaterd's own
servers send (`schema` present) and lenient about the simplest feeds in the wild,
`{"version": 5, "patch_url": "..."}`, which still mean "look now".
"""

from updaterd.core import announcement
from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import MAX_INTEGER, Fields, parse_object
from updaterd.core.names import check_name
from updaterd.errors import MalformedError

MAX_DATA = 2**20
"""Bytes of one event's JSON."""

MAX_VALUES = 1000
"""Names and values of one event's JSON, also of members that nobody knows: a megabyte
of `[]` would be thirty of objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedMetadata:
    """Signed TUF files that came inside an event. NOT verified: treat as any download.

    Both are unpacked and within the limits of an announcement.
    """

    timestamp: bytes | None = None
    snapshot: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateHint:
    """`update_available`: something may be new. None stands for "any"."""

    product: str | None = None
    channel: str | None = None
    version: str | None = None
    seq: int | None = None
    urgency: str = "normal"
    spread_s: int = 0
    pushed: PushedMetadata | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataHint:
    """`metadata`: freshly signed metadata, pushed instead of polled."""

    pushed: PushedMetadata | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """`resync`: the feed cannot continue from our id; reconcile from metadata."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """`hello`: the stream is open; `heartbeat_s` is what the server promises."""

    heartbeat_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """An event type this updaterd does not know: ignored, for newer servers."""

    event: str


Message = UpdateHint | MetadataHint | Resync | Hello | Other


def parse(event: str, data: str) -> Message:
    """Return what an event of type `event` says.

    Raises:
        MalformedError: `data` is not what its type promises.
    """
    if event == announcement.UPDATE:
        return _update(_object(event, data))
    if event == announcement.METADATA:
        return MetadataHint(pushed=_pushed(_object(event, data)))
    if event == "resync":
        return Resync(reason=_note(data, "reason"))
    if event == "hello":
        return Hello(heartbeat_s=_heartbeat(data))
    return Other(event=event)


def _object(event: str, data: str) -> Fields:
    fields = _parse(data, f"event {event!r}")
    if "schema" in fields and fields.integer("schema", low=1) != announcement.SCHEMA:
        raise MalformedError(
            f"{fields.where} has a schema this updaterd does not read",
            do="update updaterd itself; until then the safety poll serves",
            code="newer_schema",
        )
    return fields


def _parse(data: str, where: str) -> Fields:
    if len(data) > MAX_DATA:  # before a copy is made of it
        raise MalformedError(
            f"{where} has {len(data)} characters, the limit is {MAX_DATA} bytes",
            code="too_large",
        )
    return parse_object(data.encode(), where=where, limit=MAX_DATA, most=MAX_VALUES)


def _update(fields: Fields) -> UpdateHint:
    own = "schema" in fields
    if own and not ("product" in fields and "channel" in fields):
        raise MalformedError(f"{fields.where} names no product or no channel")
    if not own and not ("product" in fields or "version" in fields):
        raise MalformedError(f"{fields.where} has neither `product` nor `version`")
    product = channel = None
    if "product" in fields:
        product = check_name("product", fields.text("product"))
    if "channel" in fields:
        channel = check_name("channel", fields.text("channel"))
    urgent = "urgency" in fields and fields.text("urgency") == "critical"
    return UpdateHint(
        product=product,
        channel=channel,
        version=_label(fields),
        seq=fields.integer("seq") if "seq" in fields else None,
        urgency="critical" if urgent else "normal",
        spread_s=_spread(fields),
        pushed=_pushed(fields),
    )


def _label(fields: Fields) -> str | None:
    """Return the version as people would read it: a string, or a foreign number."""
    if "version" not in fields:
        return None
    try:
        return fields.text("version", longest=64)
    except MalformedError:
        return str(fields.integer("version", low=-MAX_INTEGER))


def _spread(fields: Fields) -> int:
    if "spread_s" not in fields:
        return 0
    return min(fields.integer("spread_s"), announcement.MAX_SPREAD_S)


def _pushed(fields: Fields) -> PushedMetadata | None:
    files = announcement.unpack_pushed(fields)
    return PushedMetadata(**files) if files else None


def _note(data: str, name: str) -> str:
    """Return a text member for people; a resync counts however it is worded."""
    try:
        return _parse(data, "resync").text(name)
    except MalformedError:
        return ""


def _heartbeat(data: str) -> float | None:
    try:
        fields = _parse(data, "hello")
        return float(fields.integer("heartbeat_s", low=1, high=3600))
    except MalformedError:
        return None
