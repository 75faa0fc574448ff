# SPDX-License-Identifier: Apache-2.0
"""An attestation counts when the named key signed it, about this very release."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib import dsse
from securesystemslib.signer import CryptoSigner

from updaterd.core.attestation import PAYLOAD, Attestation
from updaterd.errors import BrokenError
from updaterd.trust import attested

TREE, SLSA = "ab" * 32, "https://slsa.dev/provenance/v1"


def statement(**changes) -> bytes:
    return json.dumps({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "acme", "digest": {"sha256": TREE}}],
        "predicateType": SLSA,
        "predicate": {},
        **changes,
    }).encode()


def signed(signer, payload=None, kind=PAYLOAD, *, keyid="") -> bytes:
    envelope = dsse.Envelope(payload or statement(), kind, {})
    envelope.sign(signer)
    document = envelope.to_dict()
    for signature in document["signatures"]:
        signature["keyid"] = keyid
    return json.dumps(document).encode()


def entry(raw: bytes, kind=SLSA) -> Attestation:
    return Attestation(
        kind=kind, sha256=hashlib.sha256(raw).hexdigest(), length=len(raw)
    )


def pem(private) -> bytes:
    return private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )


@pytest.fixture
def signer():
    return CryptoSigner.generate_ed25519()


def fault(raw, signer, kind=SLSA) -> str:
    return attested.fault(raw, entry(raw, kind), tree=TREE, key=signer.public_key)


@pytest.mark.parametrize(
    "private",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["ed25519", "p256", "p384"],
)
def test_a_key_from_a_file_vouches_for_what_it_signed(tmp_path, private):
    """Whatever the envelope calls the key: DSSE does not say how."""
    (tmp_path / "key.pem").write_bytes(pem(private))
    raw = signed(CryptoSigner(private), keyid="builder")

    key = attested.read_key(tmp_path / "key.pem")

    assert not attested.fault(raw, entry(raw), tree=TREE, key=key)


def test_another_key_does_not_count(signer):
    assert "another key" in fault(signed(CryptoSigner.generate_ed25519()), signer)


def test_a_bare_statement_is_nobodys_word(signer):
    assert "nobody signed" in fault(statement(), signer)


def test_the_statement_of_another_release_does_not_count(signer):
    """Provenance is public: anybody can attach another artifact's."""
    other = statement(subject=[{"name": "acme", "digest": {"sha256": "00" * 32}}])

    assert "another tree" in fault(signed(signer, other), signer)


def test_a_kind_that_the_manifest_claims_alone_does_not_count(signer):
    """A signed bill of materials is no provenance, whatever the manifest calls it."""
    raw = signed(signer, statement(predicateType="https://cyclonedx.org/bom"))

    assert "the manifest says" in fault(raw, signer)


def test_a_signature_for_another_type_of_payload_does_not_count(signer):
    """DSSE signs the type along: no signature is used for two things."""
    document = json.loads(signed(signer, kind="application/x"))
    raw = json.dumps({**document, "payloadType": PAYLOAD}).encode()

    assert "another key" in fault(raw, signer)


def test_a_payload_that_was_changed_does_not_count(signer):
    document = json.loads(signed(signer))
    changed = base64.b64encode(statement(predicate={"evil": 1})).decode()

    assert "another key" in fault(
        json.dumps({**document, "payload": changed}).encode(), signer
    )


def test_other_bytes_than_the_manifest_says_do_not_count(signer):
    raw = signed(signer)

    assert "other bytes" in attested.fault(
        raw + b" ", entry(raw), tree=TREE, key=signer.public_key
    )


def test_a_hostile_file_is_a_fault_and_no_crash(signer):
    for raw in (b"", b"[" * 10_000, b'{"payload": 1}', b"\xff", b'{"a": NaN}'):
        assert fault(raw, signer)


@pytest.mark.parametrize("content", [None, b"", b"no key", "rsa"])
def test_a_key_that_cannot_be_used_is_the_owners_to_correct(tmp_path, content):
    path = tmp_path / "key.pem"
    if content == "rsa":
        content = pem(rsa.generate_private_key(65537, 2048))
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(BrokenError, match="require_attestation") as raised:
        attested.read_key(path)

    assert raised.value.code == "attestation_key"
