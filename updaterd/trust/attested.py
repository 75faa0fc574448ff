# SPDX-License-Identifier: Apache-2.0
"""Attestations, judged by a key that the machine's owner named.

DSSE's encoding of what is signed, and the signatures themselves, are securesystemslib's
work. What is left open there is here: a signature need not name its key, and the
statement that is read is the one that was signed.
"""

import hashlib
from pathlib import PurePath

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib import dsse
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature, SSlibKey

from updaterd.core import attestation
from updaterd.core.attestation import Attestation, Envelope
from updaterd.errors import BrokenError, MalformedError

_TYPES = frozenset({"ed25519", "ecdsa"})
_MOST = 16384


def read_key(path: PurePath) -> Key:
    """Return the public key in a PEM file.

    Raises:
        BrokenError: there is none that attestations can be signed with.
    """
    try:
        with open(path, "rb") as file:
            return _usable(SSlibKey.from_crypto(load_pem_public_key(file.read(_MOST))))
    except Exception as error:
        raise BrokenError(
            f"the key {path} that attestations have to be signed with cannot be used: "
            f"{error}",
            means="without it no release can be judged, so none is installed",
            do="put the builder's public key there (PEM, Ed25519 or ECDSA), or correct "
            "`require_attestation`",
            code="attestation_key",
        ) from error


def _usable(key: Key) -> Key:
    """Return a key of a type that is used.

    Raises:
        ValueError: it is of another.
    """
    if key.keytype not in _TYPES:
        raise ValueError(f"keys of the type {key.keytype} are not used here")
    return key


def fault(raw: bytes, entry: Attestation, *, tree: str, key: Key) -> str:
    """Return why an attestation does not do; empty when it does.

    Args:
        raw: the file.
        entry: what the signed manifest says of it.
        tree: the tree id, which a subject has to have. Nothing else of a manifest does:
            a thief of the release key can write any hash into it.
        key: whose word counts.
    """
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        return "it has other bytes than the manifest says"
    try:
        statement = attestation.parse(raw, where="the attestation")
    except MalformedError as error:
        return error.cause
    faults = (
        (statement.envelope is None, "nobody signed it: it is a bare statement"),
        (not _is_signed(statement.envelope, key), "another key signed it"),
        (
            statement.kind != entry.kind,
            f"it is {statement.kind}, the manifest says {entry.kind}",
        ),
        (tree not in statement.digests, "it is about another tree"),
    )
    return next((text for holds, text in faults if holds), "")


def _is_signed(envelope: Envelope | None, key: Key) -> bool:
    if envelope is None:
        return False
    signed = dsse.Envelope(envelope.payload, envelope.payload_type, {}).pae()
    for signature in envelope.signatures:
        try:
            key.verify_signature(Signature(key.keyid, signature.hex()), signed)
        except UnverifiedSignatureError:
            continue
        return True
    return False
