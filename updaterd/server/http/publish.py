# SPDX-License-Identifier: Apache-2.0
"""The body of `POST /v1/events`: read, limited and checked.

The server holds no signing keys and believes nothing, but it need not pass on what
every client would refuse: an announcement must be well-formed, and metadata that rides
in it must parse, be signed where the root is known (`roots`), and not be older than
what is served.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.core import announcement, layout
from updaterd.core.announcement import MAX_BODY, MAX_UNPACKED
from updaterd.core.json_fields import Fields, parse_object
from updaterd.errors import MalformedError, RejectedError
from updaterd.server.http.roots import Roots, check_signed
from updaterd.server.log.contract import Event, Record, Topic

if TYPE_CHECKING:
    from tuf.api.metadata import Root

_MOST_HEARD = 64
"""Timestamps kept until somebody asks which is the newest."""


class StaleMetadataError(RejectedError):
    """The pushed metadata is older than what clients can already have."""

    code = "metadata_older"


def read_announcement(body: bytes) -> Event:
    """Return the event that a request body stands for.

    With a `product` it is an `update_available`; with `tuf` alone, `metadata`.

    Raises:
        MalformedError: not an announcement.
    """
    announced = announcement.parse(body)
    is_update = announced.product is not None
    return Event(
        announcement.UPDATE if is_update else announcement.METADATA,
        Topic(announced.product, announced.channel),
        announced.encode(),
    )


def _signed(raw: bytes, role: str) -> Fields:
    """Return the signed part of a role's file; signatures are for clients to check.

    Raises:
        MalformedError: not metadata of this role (TUF specification, section 4).
    """
    document = parse_object(raw, where=f"pushed {role}", limit=MAX_UNPACKED[role])
    signatures = document.objects("signatures", lambda s: s.text("keyid"), most=64)
    if not signatures:
        raise MalformedError(f"pushed {role} has no signature")
    signed = document.fields("signed")
    if signed.text("_type") != role:
        raise MalformedError(f"pushed {role} is {signed.text('_type')!r:.80}")
    signed.integer("version", low=1)
    signed.text("expires")
    return signed


class MetadataWatch:
    """Remembers the newest timestamp that clients can have, and refuses older ones.

    Where the repository's root is at hand, only what its keys signed counts, and
    nothing else passes. Elsewhere what one product's publishers say counts for that
    product, and what came with no product for what comes with none.

    Args:
        served: `timestamp.json` of the repository this server serves, or None.
        root: a root file to judge by where the repository is served elsewhere.
    """

    def __init__(self, served: Path | None, root: Path | None = None) -> None:
        self._served = served
        self._roots = Roots(served.parent if served else None, root)
        self._heard: dict[str | None, dict[int, bytes]] = {}

    def newest(self, product: str | None = None) -> int:
        """Return the newest version known to a product's publishers, 0 for none."""
        root, newest = self._roots.newest(), 0
        for speaker, heard in self._heard.items():
            if root is not None or speaker == product:
                newest = max(newest, self._newest(heard, root))
        if self._served is not None:
            try:
                raw = self._served.read_bytes()
                newest = max(newest, _signed(raw, "timestamp").integer("version"))
            except (OSError, MalformedError):
                pass  # not our file to judge; clients will
        return newest

    @staticmethod
    def _newest(heard: dict[int, bytes], root: "Root | None") -> int:
        """Return the newest version that counts; forget what can never count again."""
        for version in sorted(heard, reverse=True):
            try:
                if root is not None:
                    check_signed(root, "timestamp", heard[version])
            except MalformedError:
                # a stranger's, of an older server; or its key was taken out
                del heard[version]
                continue
            for older in [other for other in heard if other < version]:
                del heard[older]
            return version
        return 0

    def check(self, event: Event) -> None:
        """Refuse metadata that does not parse or count, or is older than is known.

        Raises:
            MalformedError: it does not parse, its parts do not fit, or its signature
                is nobody's.
            StaleMetadataError: it is older.
        """
        timestamp = _pushed(event, "timestamp")
        if timestamp is None:
            return
        _check_snapshot(event, timestamp)
        root = self._roots.newest()
        for role in MAX_UNPACKED if root is not None else ():
            raw = _raw(event, role)
            if root is not None and raw is not None:
                check_signed(root, role, raw)
        version = timestamp.integer("version")
        newest = self.newest(event.topic.product)
        if version < newest:
            raise StaleMetadataError(
                f"pushed timestamp has version {version}, {newest} is already served",
                means="clients would refuse it as a rollback",
                do="publish again from the newest repository; if it was restored from "
                "a backup, `updaterd release recover`; if it is a new repository "
                "whose versions start at 1, move the event log away and restart the "
                "server",
            )

    def remember(self, record: Record) -> None:
        """Remember what was announced, here or by another replica."""
        try:
            raw = _raw(record.event, "timestamp")
            if raw is None:
                return
            version = _signed(raw, "timestamp").integer("version")
        except MalformedError:
            return  # an older server let it in
        heard = self._heard.setdefault(record.event.topic.product, {})
        heard[version] = raw
        if len(heard) > _MOST_HEARD:
            self._newest(heard, self._roots.newest())


def _raw(event: Event, role: str) -> bytes | None:
    """Return the bytes of a role that rides in the event, if one does.

    Raises:
        MalformedError: they do not unpack.
    """
    if b'"tuf"' not in event.data:  # most have none, and need not be parsed to see it
        return None
    fields = parse_object(event.data, where="the event", limit=MAX_BODY * 2)
    return announcement.unpack_pushed(fields, {role}).get(role)


def _pushed(event: Event, role: str) -> Fields | None:
    """Return the signed part of a role that rides in the event, if one does.

    Raises:
        MalformedError: it does not parse.
    """
    raw = _raw(event, role)
    return None if raw is None else _signed(raw, role)


def _check_snapshot(event: Event, timestamp: Fields) -> None:
    """Refuse a snapshot that is not the one its timestamp names.

    Raises:
        MalformedError: it is another one, or does not parse.
    """
    snapshot = _pushed(event, "snapshot")
    if snapshot is None:
        return
    listed = timestamp.fields("meta").fields(layout.SNAPSHOT)
    if snapshot.integer("version") != listed.integer("version"):
        raise MalformedError("pushed snapshot is not the one its timestamp names")
