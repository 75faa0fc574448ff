# SPDX-License-Identifier: Apache-2.0
"""A builder without keys and a signer without network bring a release to a machine."""

import os
import shutil

import pytest
from fakes.bundles import grow
from fakes.machine import Machine, cli
from fakes.origin import Origin

SECRET = {"UPDATERD_PASSPHRASE": "a long enough passphrase"}


class Places:
    """The builder sees the repository over HTTP; keys have passphrases."""

    def __init__(self, root):
        self.root, self.ops, self.vault = root, root / "ops", root / "vault"
        cli(
            "release", "init", self.ops, "--profile", "prod", "--product", "acme",
            "--channel", "stable", env=SECRET,
        )  # fmt: skip
        self.bootstrap = self.ops / "public/metadata/1.root.json"
        (self.vault / "public/metadata").mkdir(parents=True)
        (self.vault / "keys").mkdir(mode=0o700)
        shutil.copy(self.bootstrap, self.vault / "public/metadata")
        shutil.copy(self.ops / "release.toml", self.vault)
        shutil.copy(self.ops / "keys/keyring.json", self.vault / "keys")
        os.rename(
            self.ops / "keys/release-acme.pem", self.vault / "keys/release-acme.pem"
        )
        self.origin = Origin(self.ops / "public")
        self.machine = Machine(
            root / "machine",
            feed="http://127.0.0.1:9/v1/events",
            repository=self.origin.url,
            bootstrap=self.bootstrap,
        )

    def build(self, version):
        tree = self.root / f"tree-{version}"
        grow(tree, {"app+x": version.encode(), "data": bytes(range(256)) * 80})
        return cli(
            "release", "build", tree, "-o", self.root / "acme.release", "--product",
            "acme", "--version", version, "--from", self.origin.url, "--root",
            self.bootstrap, "--repo", self.root / "nothing",
        ).stdout  # fmt: skip

    def sign(self):
        file = self.root / "acme.release"
        cli("release", "sign", file, "--repo", self.vault, "--yes", env=SECRET)

    def publish(self):
        cli(
            "release", "publish", self.root / "acme.release", "--repo", self.ops,
            "--channel", "stable", "--no-announce", env=SECRET,
        )  # fmt: skip


@pytest.fixture
def places(tmp_path):
    made = Places(tmp_path)
    yield made
    made.origin.__exit__()


def test_a_machine_follows_what_three_places_made(places):
    for version in ("1.0.0", "1.1.0"):
        shown = places.build(version)
        places.sign()
        places.publish()
        places.machine("update", "acme")
        assert places.machine.running == version

    assert "delta from 1.0.0" in shown
    path = places.machine.product_status()["last"]["path"]
    assert "delta" in path
