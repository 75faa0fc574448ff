# SPDX-License-Identifier: Apache-2.0
"""apt itself takes a kit from an apt repository that we wrote, and no other."""

import os
import subprocess

import pytest
from fakes.machine import cli
from fakes.tools import need

from updaterd.release.kits import apt, contents, deb

FIELDS = {
    "Package": "acme-setup",
    "Version": "1.0",
    "Architecture": "all",
    "Maintainer": "Acme Ltd <it@acme.example>",
    "Description": "x",
}


def package(path, **fields):
    files = {"usr/lib/updaterd-acme/root.json": contents.File(b"{}")}
    path.write_bytes(deb.package({**FIELDS, **fields}, {}, files, when=0))
    return path


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    need("gpg", "gnupg")
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(home))
        words = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key"]
        subprocess.run(
            [*words, "Acme <it@acme.example>", "ed25519", "sign"], check=True
        )
        yield "it@acme.example"
        subprocess.run(["gpgconf", "--kill", "all"], check=True)


@pytest.fixture
def machine(tmp_path):
    """Return what runs apt-get with places of its own, nothing of the system's."""
    need("apt-get", "apt")
    for name in ("state/lists/partial", "cache/archives/partial", "etc/parts"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "status").write_text("")
    options = {
        "Dir::State": tmp_path / "state",
        "Dir::State::status": tmp_path / "status",
        "Dir::Cache": tmp_path / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": tmp_path / "etc/parts",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
    }

    def run(*words):
        set_ = [f"-o{name}={value}" for name, value in options.items()]
        return subprocess.run(
            ["apt-get", "-q", *set_, *words],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip

    run.sources = tmp_path / "etc/parts"
    return run


def publish(folder, key, *packages):
    words = ("release", "apt-repo", folder, "--key", key, "--url", f"file://{folder}")
    return cli(*words, "--deb", *packages)


def test_apt_finds_and_fetches_what_was_published(machine, key, tmp_path):
    folder = tmp_path / "apt"
    publish(folder, key, package(tmp_path / "acme-setup_1.0_all.deb"))
    newer = package(tmp_path / "acme-setup_1.1_all.deb", Version="1.1")
    publish(folder, key, newer)
    (machine.sources / "a.sources").write_text((folder / "stable.sources").read_text())

    done = machine("update")
    assert 0 == done.returncode, done.stderr
    assert "W:" not in done.stderr
    done = machine("download", "acme-setup")

    assert 0 == done.returncode, done.stderr
    assert newer.read_bytes() == (tmp_path / "acme-setup_1.1_all.deb").read_bytes()


def test_apt_takes_nothing_that_was_not_signed(machine, key, tmp_path):
    folder = tmp_path / "apt"
    publish(folder, key, package(tmp_path / "acme-setup_1.0_all.deb"))
    (machine.sources / "a.sources").write_text((folder / "stable.sources").read_text())
    signed = folder / "dists/stable/InRelease"
    signed.write_text(signed.read_text().replace("Origin: updaterd", "Origin: other"))

    assert machine("update").returncode != 0


def test_what_an_older_index_names_is_still_there(key, tmp_path):
    """Who has the old signed file, and fetches while a new one is written."""
    folder = tmp_path / "apt"
    publish(folder, key, package(tmp_path / "acme-setup_1.0_all.deb"))
    before = set(folder.rglob("by-hash/SHA256/*"))
    publish(folder, key, package(tmp_path / "b_1.0_all.deb", Package="b"))

    assert before < set(folder.rglob("by-hash/SHA256/*"))
    assert all(path.exists() for path in before)


def test_what_is_no_package_is_refused(key, tmp_path):
    path = tmp_path / "x_1_all.deb"
    path.write_bytes(b"!<arch>\n" + b"x" * 100)

    with pytest.raises(apt.KitError, match="no Debian package"):
        apt.control(path)
