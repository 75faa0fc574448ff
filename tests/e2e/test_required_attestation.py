# SPDX-License-Identifier: Apache-2.0
"""An owner requires the builder's word, and a machine installs nothing without it."""

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.bundles import grow
from fakes.machine import Machine, cli
from fakes.origin import Origin
from securesystemslib import dsse
from securesystemslib.signer import CryptoSigner

SLSA = "https://slsa.dev/provenance/v1"


class Site:
    def __init__(self, root):
        self.root, self.ops, self.tree = root, root / "ops", root / "tree"
        self.builder = CryptoSigner.generate_ed25519()
        key = root / "builder.pem"
        public = self.builder._private_key.public_key()
        key.write_bytes(
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        cli(
            "release", "init", self.ops, "--profile", "demo", "--product", "acme",
            "--channel", "stable",
        )  # fmt: skip
        self.origin = Origin(self.ops / "public")
        self.machine = Machine(
            root / "machine",
            feed="http://127.0.0.1:9/v1/events",
            repository=self.origin.url,
            bootstrap=self.ops / "public/metadata/1.root.json",
            product_extra=f'require_attestation = {{predicate_type = "{SLSA}", '
            f'key = "{key}"}}',
        )

    def push(self, version, signer=None):
        if not self.tree.exists():
            self.tree.mkdir()
        grow(self.tree, {"app+x": version.encode()})
        words = []
        if signer is not None:
            shown = cli("release", "subject", self.tree, "--json").stdout
            document = {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": json.loads(shown)["subject"],
                "predicateType": SLSA,
                "predicate": {},
            }
            envelope = dsse.Envelope(
                json.dumps(document).encode(), "application/vnd.in-toto+json", {}
            )
            envelope.sign(signer)
            path = self.root / f"{version}.json"
            path.write_text(json.dumps(envelope.to_dict()))
            words = ["--attest", path]
        cli(
            "release", "push", self.tree, "--repo", self.ops, "--product", "acme",
            "--version", version, "--channel", "stable", "--no-announce", *words,
        )  # fmt: skip

    def refused(self):
        done = self.machine("update", "acme", expect=None)
        assert done.returncode != 0
        return self.machine.product_status()["last_error"]["code"]


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.origin.__exit__()


def test_only_what_the_builder_attested_is_installed(site):
    """A release key alone, stolen or lent, brings nothing to this machine."""
    site.push("1.0.0", site.builder)
    site.machine("update", "acme")
    assert site.machine.running == "1.0.0"

    site.push("1.1.0")
    assert site.refused() == "attestation_missing"

    site.push("1.2.0", CryptoSigner.generate_ed25519())
    assert site.refused() == "attestation_untrusted"
    assert site.machine.running == "1.0.0"

    site.push("1.3.0", site.builder)
    site.machine("update", "acme")
    assert site.machine.running == "1.3.0"
