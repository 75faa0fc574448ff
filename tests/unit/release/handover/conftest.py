# SPDX-License-Identifier: Apache-2.0
"""Three places: one builds, one signs, one publishes."""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout

import pytest
from fakes.bundles import grow

from updaterd import cli


class Places:
    """`ops` has the online key, `vault` the release key, `ci` none."""

    def __init__(self, root):
        self.root = root
        self.ops, self.vault, self.ci = (root / n for n in ("ops", "vault", "ci"))
        self.file = root / "acme.release"

    def __call__(self, *words, expect=0):
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main(["release", *map(str, words)])
        assert code == expect, out.getvalue() + err.getvalue()
        return (err if expect else out).getvalue()

    def found(self, *more):
        self("init", self.ops, "--profile", "demo", "--product", "acme", *more)

    def part(self):
        """Move the release keys to a machine of their own."""
        self.vault.mkdir()
        (self.vault / "public/metadata").mkdir(parents=True)
        shutil.copytree(self.ops / "keys", self.vault / "keys")
        shutil.copy(self.ops / "release.toml", self.vault)
        shutil.copy(
            self.ops / "public/metadata/1.root.json", self.vault / "public/metadata"
        )
        for path in self.ops.glob("keys/release-*.pem"):
            path.unlink()
        for path in self.vault.glob("keys/*.pem"):
            if not path.name.startswith("release-"):
                path.unlink()

    def tree(self, version, **files):
        folder = self.root / f"tree-{version}"
        if not folder.exists():
            same = bytes(range(256)) * 80
            grow(folder, {"app+x": version.encode(), "data": same, **files})
        return folder

    def build(self, version, *words, expect=0, out=None, source=None):
        return self(
            "build", self.tree(version), "-o", out or self.file, "--product", "acme",
            "--version", version, "--from", source or self.ops / "public", "--json",
            "--repo", self.ci, "--platform", "linux-x86_64", *words, expect=expect,
        )  # fmt: skip

    def sign(self, *words, expect=0, file=None):
        out = self(
            "sign", file or self.file, "--repo", self.vault, "--yes", "--json", *words,
            expect=expect,
        )  # fmt: skip
        return out if expect else json.loads(out)

    def publish(self, *words, expect=0, file=None, channel="stable"):
        where = ("--channel", channel) if channel else ()
        return self(
            "publish", file or self.file, "--repo", self.ops, *where, *words,
            expect=expect,
        )  # fmt: skip

    def all(self, version, **more):
        self.build(version, **more)
        self.sign()
        self.publish()

    def verify(self):
        assert self("verify", "--deep", "--repo", self.ops) == "all well\n"

    def offered(self):
        from datetime import UTC, datetime

        from updaterd.release import order
        from updaterd.release.workspace import Workspace

        space = Workspace(self.ops)
        repository = order.open_repository(space, datetime.now(UTC))
        pointer = order.catalog_of(space, repository, "acme").pointer("stable")
        return [offer.version for offer in pointer.releases]


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    """Places where nothing, 1.0.0, and 1.0.0 with a file of 1.1.0 is there."""
    root = tmp_path_factory.mktemp("places")
    made = Places(root / "empty")
    made.root.mkdir()
    made.found("--channel", "stable")
    made.part()
    shutil.copytree(made.root, root / "first")
    made = Places(root / "first")
    made.all("1.0.0")
    shutil.copytree(made.root, root / "built")
    Places(root / "built").build("1.1.0")
    return root


@pytest.fixture
def at(templates, tmp_path):
    """Return the places in one of those states."""

    def copy(name):
        shutil.copytree(templates / name, tmp_path / "at")
        return Places(tmp_path / "at")

    return copy
