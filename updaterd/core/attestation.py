# SPDX-License-Identifier: Apache-2.0
"""Attestations: what a build system says of a release, read strictly.

An attestation is a file that holds an in-toto statement: as it is, in a DSSE envelope
that somebody signed, or in a Sigstore bundle around such an envelope. Its subject
names digests, its predicate type says of what kind it is (SLSA provenance, a bill of
materials). What the predicate itself says is not looked at.
"""

import base64
import binascii
import re

from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import Fields, parse_object
from updaterd.errors import MalformedError

MAX_BYTES = 8 * 2**20
"""Largest file."""
MAX_COUNT = 16
"""Most of one release on one platform."""
PAYLOAD = "application/vnd.in-toto+json"
"""Type of what a signed envelope holds."""
STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")

_MAX_VALUES = 300_000
_MAX_SUBJECTS = 1024
_MAX_SIGNATURES = 16
_KIND = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What a manifest says of one: its predicate type, and the file's hash."""

    kind: str
    sha256: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What somebody signed; nothing in it has been verified.

    Attributes:
        payload: the statement's bytes.
        payload_type: what it says they are; signed with them.
        signatures: raw bytes of each.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement, as far as it matters here.

    Attributes:
        kind: its predicate type.
        digests: SHA-256 of its subjects.
        envelope: what it came in; None: nobody signed it.
    """

    kind: str
    digests: frozenset[str]
    envelope: Envelope | None = None


def item(fields: Fields) -> Attestation:
    """Return what a manifest says of one.

    Raises:
        MalformedError: anything is missing, out of range, or unsafe.
    """
    return Attestation(
        kind=_kind(fields, "kind"),
        sha256=fields.hexdigest("sha256"),
        length=fields.integer("length", low=1, high=MAX_BYTES),
    )


def parse(raw: bytes, *, where: str) -> Statement:
    """Return the statement in a file; its signatures are not verified.

    Raises:
        MalformedError: too large, or none.
    """
    document = parse_object(raw, where=where, limit=MAX_BYTES, most=_MAX_VALUES)
    if "dsseEnvelope" in document:
        document = document.fields("dsseEnvelope")
    if "payload" not in document:
        return _statement(document, None)
    envelope = Envelope(
        payload=_decoded(document, "payload"),
        payload_type=document.text("payloadType"),
        signatures=document.objects("signatures", _signature, most=_MAX_SIGNATURES),
    )
    if envelope.payload_type != PAYLOAD:
        raise MalformedError(
            f"{where} is an envelope around {envelope.payload_type!r:.80}, "
            f"not {PAYLOAD!r}"
        )
    inside = parse_object(
        envelope.payload, where=f"{where}: payload", limit=MAX_BYTES, most=_MAX_VALUES
    )
    return _statement(inside, envelope)


def _statement(document: Fields, envelope: Envelope | None) -> Statement:
    kind = document.text("_type")
    if kind not in STATEMENTS:
        raise MalformedError(
            f"{document.where} is {kind!r:.80}, not an in-toto statement"
        )
    subjects = document.objects("subject", _digest, most=_MAX_SUBJECTS)
    return Statement(
        kind=_kind(document, "predicateType"),
        digests=frozenset(digest for digest in subjects if digest),
        envelope=envelope,
    )


def _kind(fields: Fields, name: str) -> str:
    kind = fields.text(name)
    if _KIND.fullmatch(kind) is None:
        raise MalformedError(f"{fields.where}: {name!r} is no predicate type")
    return kind


def _digest(subject: Fields) -> str:
    """Return a subject's SHA-256; empty: it has digests of other kinds only."""
    digests = subject.fields("digest")
    return digests.hexdigest("sha256") if "sha256" in digests else ""


def _signature(fields: Fields) -> bytes:
    return _decoded(fields, "sig")


def _decoded(fields: Fields, name: str) -> bytes:
    """Return the bytes of a member in Base64, of either alphabet (DSSE allows both).

    Raises:
        MalformedError: it is none.
    """
    text = fields.text(name, longest=MAX_BYTES).translate({45: "+", 95: "/"})
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise MalformedError(f"{fields.where}: {name!r} is not Base64") from error
