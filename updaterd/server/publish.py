"""What may be announced: the body of `POST /v1/events`, checked.

The server holds no keys and believes nothing, but it need not pass on what every
client would refuse: an announcement must be well-formed, and metadata that rides in
it must parse and must not be older than what is served.
"""

import base64
import binascii
import zlib
from pathlib import Path

from updaterd.core.names import check_name, check_version
from updaterd.core.wire import Fields, encode, parse_object
from updaterd.errors import MalformedError, RejectedError
from updaterd.server.log import Event, Record, Topic

BODY_LIMIT = 512 << 10
"""Largest accepted announcement, in bytes."""

_SCHEMA = 1
_MAX_SPREAD_S = 30 * 86400
_TIMESTAMP_LIMIT = 16 << 10
_SNAPSHOT_LIMIT = 256 << 10
_ROLE_LIMITS = {"timestamp": _TIMESTAMP_LIMIT, "snapshot": _SNAPSHOT_LIMIT}


class StaleMetadataError(RejectedError):
    """The pushed metadata is older than what clients can already have."""

    code = "metadata_older"


def read_announcement(body: bytes) -> Event:
    """Return the event that a request body stands for.

    With a `product` it is an `update_available`; with `tuf` alone, `metadata`.
    Members that this server does not know are dropped.

    Raises:
        MalformedError: not an announcement.
    """
    fields = parse_object(body, where="the announcement", limit=BODY_LIMIT)
    if fields.integer("schema") != _SCHEMA:
        raise MalformedError(
            "the announcement has a schema this server does not know",
            do="upgrade the server",
        )
    tuf = _read_tuf(fields) if "tuf" in fields else None
    document: dict[str, object] = {"schema": _SCHEMA}
    if "product" not in fields:
        if tuf is None:
            raise MalformedError("the announcement names no product and no metadata")
        name, topic = "metadata", Topic(None, None)
    else:
        name = "update_available"
        topic = Topic(
            check_name("product", fields.text("product")),
            check_name("channel", fields.text("channel")),
        )
        urgency = fields.text("urgency") if "urgency" in fields else "normal"
        if urgency not in {"normal", "critical"}:
            raise MalformedError(
                f"urgency {urgency!r:.80} is neither normal nor critical"
            )
        document |= {
            "product": topic.product,
            "channel": topic.channel,
            "version": check_version(fields.text("version")),
            "seq": fields.integer("seq"),
            "urgency": urgency,
            "spread_s": fields.integer("spread_s", high=_MAX_SPREAD_S)
            if "spread_s" in fields
            else 0,
        }
    if tuf is not None:
        document["tuf"] = tuf
    return Event(name, topic, encode(document).rstrip(b"\n"))


def _read_tuf(fields: Fields) -> dict[str, str]:
    tuf = fields.fields("tuf")
    found = {}
    for role in _ROLE_LIMITS:
        if role in tuf:
            found[role] = tuf.text(role, longest=BODY_LIMIT)
    if "timestamp" not in found:
        raise MalformedError("pushed metadata holds no timestamp")
    return found


def _inflate(text: str, role: str) -> bytes:
    """Return the signed file, without letting it grow past its limit.

    Raises:
        MalformedError: not base64, not zlib, cut short, or too large.
    """
    limit = _ROLE_LIMITS[role]
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(text, validate=True), limit + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise MalformedError(f"pushed {role} is not zlib in base64: {error}") from error
    if len(raw) > limit or not unpacker.eof or unpacker.unused_data:
        raise MalformedError(f"pushed {role} is cut short or larger than {limit} bytes")
    return raw


def _signed(raw: bytes, role: str) -> Fields:
    """Return the signed part of a role's file; signatures are for clients to check.

    Raises:
        MalformedError: not metadata of this role (TUF specification, section 4).
    """
    document = parse_object(raw, where=f"pushed {role}", limit=_ROLE_LIMITS[role])
    signatures = document.each("signatures", lambda s: s.text("keyid"), most=64)
    if not signatures:
        raise MalformedError(f"pushed {role} has no signature")
    signed = document.fields("signed")
    if signed.text("_type") != role:
        raise MalformedError(f"pushed {role} is {signed.text('_type')!r:.80}")
    signed.integer("version", low=1)
    signed.text("expires")
    return signed


class MetadataWatch:
    """The newest timestamp that clients can have from here.

    Args:
        served: `timestamp.json` of the repository this server serves, or None.
    """

    def __init__(self, served: Path | None) -> None:
        self._served = served
        self._announced = 0

    def newest(self) -> int:
        """Return the newest version known, 0 when none is."""
        newest = self._announced
        if self._served is not None:
            try:
                raw = self._served.read_bytes()
                newest = max(newest, _signed(raw, "timestamp").integer("version"))
            except (OSError, MalformedError):
                pass  # not our file to judge; clients will
        return newest

    def check(self, event: Event) -> None:
        """Refuse metadata that does not parse or is older than what is known.

        Raises:
            MalformedError: it does not parse, or its parts do not fit.
            StaleMetadataError: it is older.
        """
        timestamp = _pushed(event, "timestamp")
        if timestamp is None:
            return
        _check_snapshot(event, timestamp)
        version, newest = timestamp.integer("version"), self.newest()
        if version < newest:
            raise StaleMetadataError(
                f"pushed timestamp has version {version}, {newest} is already served",
                means="clients would refuse it as a rollback",
                do="publish again from the newest repository; if it was made anew and "
                "counts from 1 again, move the event log away and restart the server",
            )

    def saw(self, record: Record) -> None:
        """Remember what was announced, here or by another replica."""
        try:
            timestamp = _pushed(record.event, "timestamp")
            version = timestamp.integer("version") if timestamp else 0
        except MalformedError:
            return  # an older server let it in
        self._announced = max(self._announced, version)


def _pushed(event: Event, role: str) -> Fields | None:
    """Return the signed part of a role that rides in the event, if one does.

    Raises:
        MalformedError: it does not parse.
    """
    if b'"tuf"' not in event.data:  # most have none, and need not be parsed to see it
        return None
    fields = parse_object(event.data, where="the event", limit=BODY_LIMIT * 2)
    if "tuf" not in fields or role not in (tuf := fields.fields("tuf")):
        return None
    return _signed(_inflate(tuf.text(role, longest=BODY_LIMIT), role), role)


def _check_snapshot(event: Event, timestamp: Fields) -> None:
    """Refuse a snapshot that is not the one its timestamp names.

    Raises:
        MalformedError: it is another one, or does not parse.
    """
    snapshot = _pushed(event, "snapshot")
    if snapshot is None:
        return
    listed = timestamp.fields("meta").fields("snapshot.json")
    if snapshot.integer("version") != listed.integer("version"):
        raise MalformedError("pushed snapshot is not the one its timestamp names")
