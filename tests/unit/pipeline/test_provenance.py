# SPDX-License-Identifier: Apache-2.0
"""A thief of the release key writes any manifest; the owner asks for a builder's word.

The builder attested one tree, and its attestation is public.
"""

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib import dsse
from securesystemslib.signer import CryptoSigner

from updaterd.core.attestation import PAYLOAD, Attestation
from updaterd.core.attributes import Attributes
from updaterd.core.manifest import File, Full, Link, Manifest
from updaterd.core.special import Special
from updaterd.errors import BrokenError
from updaterd.pipeline.decision import provenance

SLSA = "https://slsa.dev/provenance/v1"
GOOD = Manifest(
    product="acme",
    version="1.0.0",
    seq=1,
    platform="linux-x86_64",
    min_updater="0.2.0",
    floor_seq=0,
    files=(File("app", "ab" * 32, 3, 0o755),),
    full=Full(sha256="cd" * 32, length=9, unpacked=3, codec="zstd"),
)


@pytest.fixture
def machine(tmp_path):
    """Return what checks a manifest, to which the builder's attestation is attached."""
    signer = CryptoSigner.generate_ed25519()
    key = tmp_path / "builder.pem"
    key.write_bytes(
        signer._private_key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
    )
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "acme", "digest": {"sha256": GOOD.tree}}],
        "predicateType": SLSA,
        "predicate": {},
    }
    envelope = dsse.Envelope(json.dumps(statement).encode(), PAYLOAD, {})
    envelope.sign(signer)
    raw = json.dumps(envelope.to_dict()).encode()
    entry = Attestation(
        kind=SLSA, sha256=hashlib.sha256(raw).hexdigest(), length=len(raw)
    )
    required = SimpleNamespace(predicate_type=SLSA, key=key)
    run = SimpleNamespace(
        name="acme",
        product=SimpleNamespace(require_attestation=required),
        services=SimpleNamespace(
            bases=("https://a",),
            fetcher=SimpleNamespace(get=lambda _url, **_: raw, deadline_s=1),
        ),
    )
    return lambda manifest: provenance.check(
        run, replace(manifest, attestations=(entry,))
    )


def test_the_attested_tree_is_taken(machine):
    machine(GOOD)


def test_an_attested_hash_in_the_place_of_the_full_bundles(machine):
    """Nobody fetches that bundle: the machine takes the thief's delta."""
    evil = replace(
        GOOD,
        files=(File("app", "ee" * 32, 4, 0o755),),
        full=replace(GOOD.full, sha256=GOOD.tree),
    )

    with pytest.raises(BrokenError, match="about another tree") as raised:
        machine(evil)

    assert raised.value.code == "attestation_untrusted"


@pytest.mark.parametrize(
    "attributes",
    [
        Attributes(outside=(Link("lib", "/home/thief/lib"),)),
        Attributes(special=(Special("app", 0o4755),)),
    ],
    ids=["link", "setuid"],
)
def test_links_and_rights_added_to_an_attested_tree(machine, attributes):
    """They are not in the tree id."""
    with pytest.raises(BrokenError, match="no attestation is about") as raised:
        machine(replace(GOOD, attributes=attributes))

    assert raised.value.code == "attestation_partial"
