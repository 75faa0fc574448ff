# SPDX-License-Identifier: Apache-2.0
"""Attestations as they come from outside: read strictly, or refused by name."""

import base64
import json

import pytest

from updaterd.core import attestation
from updaterd.errors import MalformedError

DIGEST = "ab" * 32


def statement(**changes) -> dict:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "acme", "digest": {"sha256": DIGEST}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {}, "runDetails": {"weight": 0.5}},
        **changes,
    }


def envelope(inside: dict, **changes) -> dict:
    payload = base64.b64encode(json.dumps(inside).encode()).decode()
    return {
        "payload": payload,
        "payloadType": attestation.PAYLOAD,
        "signatures": [{"keyid": "", "sig": base64.b64encode(b"s" * 64).decode()}],
        **changes,
    }


def parse(document) -> attestation.Statement:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return attestation.parse(raw, where="it")


def test_statement_envelope_and_bundle_say_the_same():
    bare = parse(statement())
    signed = parse(envelope(statement()))
    bundled = parse({"mediaType": "x", "dsseEnvelope": envelope(statement())})

    assert bare.kind == signed.kind == "https://slsa.dev/provenance/v1"
    assert bare.digests == signed.digests == frozenset({DIGEST})
    assert bare.envelope is None
    assert signed.envelope.signatures == (b"s" * 64,)
    assert bundled == signed


def test_both_alphabets_of_base64_are_read():
    """DSSE: a reader accepts the standard and the URL-safe one."""
    signature = base64.urlsafe_b64encode(b"\xfb\xff\xfe" * 20).decode()

    read = parse(envelope(statement(), signatures=[{"sig": signature}]))

    assert "_" in signature
    assert read.envelope.signatures == (b"\xfb\xff\xfe" * 20,)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({}, id="nothing"),
        pytest.param(statement(_type="https://example.com/x"), id="another type"),
        pytest.param(statement(subject="acme"), id="subject is text"),
        pytest.param(statement(subject=[{"name": "acme"}]), id="no digest"),
        pytest.param(statement(predicateType="a\nb"), id="kind with a line break"),
        pytest.param(statement(predicateType=""), id="empty kind"),
        pytest.param(
            statement(subject=[{"digest": {"sha256": "AB" * 32}}]), id="upper case"
        ),
        pytest.param(
            statement(subject=[{"digest": {"sha256": DIGEST}}] * 1025), id="a crowd"
        ),
        pytest.param(envelope(statement(), payloadType="text/plain"), id="type"),
        pytest.param(envelope(statement(), payload="!"), id="not base64"),
        pytest.param(envelope(statement(), signatures=[{"sig": 3}]), id="sig"),
        pytest.param(envelope(statement(), signatures=[{}] * 17), id="signatures"),
        pytest.param(envelope({"payload": "x"}), id="envelope in an envelope"),
        pytest.param(b'{"_type": NaN}', id="NaN"),
        pytest.param(b"[" * 100_000, id="nesting"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="an endless number"),
        pytest.param(b"\xff{}", id="not UTF-8"),
        pytest.param(b'{"a":[' + b"0," * 300_001 + b"0]}", id="too many values"),
        pytest.param(b" " * (attestation.MAX_BYTES + 1), id="too large"),
        pytest.param(b'{"_type":"a","_type":"b"}', id="a name twice"),
    ],
)
def test_hostile_documents_are_refused(document):
    with pytest.raises(MalformedError):
        parse(document)
