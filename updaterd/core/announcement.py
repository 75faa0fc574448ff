# SPDX-License-Identifier: Apache-2.0
"""The announcement: what a publisher posts, a feed passes on and a machine reads.

    {"schema": 1, "product": "acme", "channel": "stable", "version": "1.2.0",
     "seq": 7, "urgency": "normal", "spread_s": 3600,
     "tuf": {"timestamp": "<base64 of zlib>", "snapshot": "<base64 of zlib>"}}

Without `product` it carries metadata alone. A publisher encodes it
(release/announce.py), a feed parses it strictly (server/http/publish.py), a machine
reads it as one of the hints of core/events.py. The limits are the machine's own: what
a feed takes, every machine can use.
"""

import base64
import binascii
import zlib
from collections.abc import Collection

from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import Fields, encode, parse_object
from updaterd.core.names import check_name, check_version
from updaterd.errors import MalformedError

SCHEMA = 1

UPDATE = "update_available"
METADATA = "metadata"
"""Types of the events that an announcement becomes."""

MAX_BODY = 512 * 2**10
"""Bytes of an announcement's JSON."""

MAX_TIMESTAMP = 4 * 2**10
MAX_SNAPSHOT = 256 * 2**10
"""Bytes of signed files, unpacked: larger ones the machine's TUF client refuses too."""

MAX_UNPACKED = {"timestamp": MAX_TIMESTAMP, "snapshot": MAX_SNAPSHOT}

MAX_SPREAD_S = 30 * 86400
"""The longest rollout that a channel can sign (`Rollout.window_s`); a machine looks
after one poll interval at the latest, whatever is announced (core/due.py)."""

URGENCIES = ("normal", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A release that a channel offers, signed metadata, or both.

    Attributes:
        product: None for metadata alone; the next five say nothing then.
        timestamp: the signed file as `pack` has it, if it is pushed.
        snapshot: see `timestamp`.
    """

    product: str | None = None
    channel: str | None = None
    version: str = ""
    seq: int = 0
    urgency: str = "normal"
    spread_s: int = 0
    timestamp: str | None = None
    snapshot: str | None = None

    def encode(self) -> bytes:
        """Return the announcement's JSON, on one line."""
        document: dict[str, object] = {"schema": SCHEMA}
        if self.product is not None:
            document |= {
                "product": self.product,
                "channel": self.channel,
                "version": self.version,
                "seq": self.seq,
                "urgency": self.urgency,
                "spread_s": self.spread_s,
            }
        pushed = {"timestamp": self.timestamp, "snapshot": self.snapshot}
        if tuf := {role: text for role, text in pushed.items() if text is not None}:
            document["tuf"] = tuf
        return encode(document).rstrip(b"\n")


def parse(body: bytes) -> Announcement:
    """Return the announcement in `body`; members that nobody knows are dropped.

    What `timestamp` and `snapshot` hold is unpacked by whoever needs it (`unpack`).

    Raises:
        MalformedError: it is none, or beyond a limit.
    """
    fields = parse_object(body, where="the announcement", limit=MAX_BODY)
    if fields.integer("schema") != SCHEMA:
        raise MalformedError(
            "the announcement has a schema this server does not know",
            do="upgrade the server",
        )
    timestamp = snapshot = None
    if "tuf" in fields:
        packed = _packed(fields.fields("tuf"))
        timestamp, snapshot = packed["timestamp"], packed["snapshot"]
        if timestamp is None:
            raise MalformedError("pushed metadata holds no timestamp")
    if "product" not in fields:
        if timestamp is None:
            raise MalformedError("the announcement names no product and no metadata")
        return Announcement(timestamp=timestamp, snapshot=snapshot)
    urgency = fields.text("urgency") if "urgency" in fields else "normal"
    if urgency not in URGENCIES:
        raise MalformedError(f"urgency {urgency!r:.80} is neither normal nor critical")
    return Announcement(
        product=check_name("product", fields.text("product")),
        channel=check_name("channel", fields.text("channel")),
        version=check_version(fields.text("version")),
        seq=fields.integer("seq"),
        urgency=urgency,
        spread_s=(
            fields.integer("spread_s", high=MAX_SPREAD_S) if "spread_s" in fields else 0
        ),
        timestamp=timestamp,
        snapshot=snapshot,
    )


def _packed(tuf: Fields) -> dict[str, str | None]:
    """Return the packed file of each role, None where it is not pushed."""
    return {
        role: tuf.text(role, longest=2 * limit) if role in tuf else None
        for role, limit in MAX_UNPACKED.items()
    }


def pack(raw: bytes) -> str:
    """Return a signed file as it travels: base64 of zlib."""
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def unpack(text: str, role: str) -> bytes:
    """Return the signed file of a role, without letting it grow past its limit.

    Raises:
        MalformedError: not base64, not zlib, cut short, or too large.
    """
    limit = MAX_UNPACKED[role]
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(text, validate=True), limit + 1)
    except (zlib.error, binascii.Error, ValueError) as error:
        raise MalformedError(f"pushed {role} is not zlib in base64: {error}") from error
    if len(raw) > limit:
        raise MalformedError(
            f"pushed {role} unpacks to more than {limit} bytes", code="too_large"
        )
    if not inflate.eof or inflate.unused_data:
        raise MalformedError(f"pushed {role} is cut short or has a tail")
    return raw


def unpack_pushed(
    fields: Fields, roles: Collection[str] = tuple(MAX_UNPACKED)
) -> dict[str, bytes]:
    """Return the files that ride in an announcement, of these roles, by role.

    Raises:
        MalformedError: one of them does not unpack.
    """
    if "tuf" not in fields:
        return {}
    packed = _packed(fields.fields("tuf"))
    return {
        role: unpack(text, role)
        for role, text in packed.items()
        if text is not None and role in roles
    }
