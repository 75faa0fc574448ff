# SPDX-License-Identifier: Apache-2.0
"""Attestations of a release: bound by its manifest, or the push is refused."""

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.bundles import grow

from updaterd import cli
from updaterd.core import manifest as manifests
from updaterd.release.workspace import this_platform

pytestmark = pytest.mark.slow

SLSA = "https://slsa.dev/provenance/v1"


def write(path, digest, kind=SLSA):
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "acme", "digest": {"sha256": digest}}],
        "predicateType": kind,
        "predicate": {},
    }
    path.write_text(json.dumps(document))
    return path


class Shell:
    def __init__(self, root, capsys):
        self.root, self.capsys = root, capsys

    @property
    def blobs(self):
        found = (self.root / "ops/public/blobs").rglob("*")
        return {path.name for path in found if path.is_file()}

    def __call__(self, *words, expect=0, out=False):
        code = cli.main(["release", *map(str, words)])
        shown = self.capsys.readouterr()
        assert code == expect, shown.err
        return shown.out if out or not expect else shown.err

    def push(self, version, *words, expect=0):
        return self(
            "push", self.root / "tree", "--repo", self.root / "ops", "--product",
            "acme", "--channel", "stable", "--version", version, *words, expect=expect,
        )  # fmt: skip

    def subject(self):
        return json.loads(self("subject", self.root / "tree", "--json"))["tree"]


@pytest.fixture
def shell(tmp_path, capsys):
    made = Shell(tmp_path, capsys)
    made(
        "init", tmp_path / "ops", "--profile", "demo", "--product", "acme",
        "--channel", "stable",
    )  # fmt: skip
    grow(tmp_path / "tree", {"app+x": b"one", "data": b"x" * 1000})
    return made


def manifest(shell):
    (path,) = (shell.root / "ops/public/targets/acme/releases").rglob("*.json")
    return manifests.parse(path.read_bytes())


def test_the_subject_is_the_tree_id_and_the_hash_of_the_listing(shell, tmp_path):
    """A tool that attests files and one that takes digests say the same."""
    line = shell("subject", tmp_path / "tree", "--listing", tmp_path / "listing")

    digest = hashlib.sha256((tmp_path / "listing").read_bytes()).hexdigest()
    assert line == f"{digest}  tree\n"
    shell.push("1.0.0")
    assert manifest(shell).tree == digest


def test_the_manifest_binds_what_was_attested(shell, tmp_path):
    given = write(tmp_path / "slsa.json", shell.subject())

    shell.push("1.0.0", "--attest", given)

    (entry,) = manifest(shell).attestations
    assert entry.kind == SLSA
    assert entry.sha256 == hashlib.sha256(given.read_bytes()).hexdigest()
    assert entry.sha256 in shell.blobs
    assert shell("verify", "--repo", tmp_path / "ops") == "all well\n"
    repeated = shell.push("1.0.0", "--attest", given)
    assert "already released" in repeated


def test_an_attestation_of_the_full_bundle_alone_is_not_signed(shell, tmp_path):
    """A machine that takes a delta never compares that hash with the tree."""
    shell.push("1.0.0")
    given = write(tmp_path / "bundle.json", manifest(shell).full.sha256)

    text = shell.push("1.0.0", "--attest", given, expect=1)

    assert "not about this release" in text


def test_an_attestation_of_another_tree_is_not_signed(shell, tmp_path):
    given = write(tmp_path / "slsa.json", "00" * 32)

    text = shell.push("1.0.0", "--attest", given, expect=1)

    assert "not about this release" in text
    assert shell.subject() in text
    assert not list((tmp_path / "ops/public/targets").rglob("*.json"))


def test_a_release_that_is_out_gets_no_further_attestation(shell, tmp_path):
    shell.push("1.0.0")
    given = write(tmp_path / "slsa.json", shell.subject())

    text = shell.push("1.0.0", "--attest", given, expect=1)

    assert "exists without" in text


def test_what_is_no_attestation_is_refused_before_anything_is_built(shell, tmp_path):
    (tmp_path / "bad.json").write_text('{"_type": "something"}')

    text = shell.push("1.0.0", "--attest", tmp_path / "bad.json", expect=1)

    assert "no attestation that a release can carry" in text
    assert not shell.blobs


def test_a_changed_attestation_is_found(shell, tmp_path):
    given = write(tmp_path / "slsa.json", shell.subject())
    shell.push("1.0.0", "--attest", given)
    (entry,) = manifest(shell).attestations
    blob = tmp_path / f"ops/public/blobs/sha256/{entry.sha256[:2]}/{entry.sha256}"
    blob.write_bytes(given.read_bytes().replace(b"acme", b"evil"))

    assert "is damaged" in shell("verify", "--repo", tmp_path / "ops", expect=1)


def test_show_says_of_each_attestation_whether_it_is_well(shell, tmp_path):
    given = write(tmp_path / "slsa.json", shell.subject())
    shell.push("1.0.0", "--attest", given)
    which = ("--repo", tmp_path / "ops", "--product", "acme", "--version", "1.0.0")
    key = tmp_path / "key.pem"
    key.write_bytes(
        Ed25519PrivateKey
        .generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )

    assert f"attested  {SLSA}" in shell("show", *which)
    shown = shell("show", *which, "--key", key, "--json", expect=1, out=True)

    (entry,) = json.loads(shown)["platforms"][this_platform()]["attestations"]
    assert "nobody signed it" in entry["fault"]
