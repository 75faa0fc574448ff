"""The .deb files: self-contained, reproducible, and as Debian wants them."""

import hashlib
import os
import subprocess

import pytest
from fakes import packages
from fakes.tools import need


@pytest.fixture(scope="module")
def built():
    return packages.built()


def deb(folder, name):
    (found,) = folder.glob(f"{name}_*.deb")
    return found


def listing(path):
    need("dpkg-deb", "dpkg")
    shown = subprocess.run(
        ["dpkg-deb", "-c", path], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 5) for line in shown.splitlines()]
    return {row[5].partition(" -> ")[0].lstrip("."): row for row in rows}


@pytest.mark.parametrize("name", ["updaterd", "updaterd-feed"])
def test_lintian_has_nothing_to_say(built, name):
    """Beyond the overrides, each of which carries its argument."""
    tool = need("lintian")
    done = subprocess.run(
        [
            *(tool, "--fail-on=error,warning,info", "--allow-root"),
            str(deb(built, name)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stdout), done.stdout


def test_the_daemons_package_has_what_it_needs_and_no_more(built):
    """All the Pythons side by side; no server, no console, no tests, no secrets."""
    files = listing(deb(built, "updaterd"))
    site = "/usr/lib/updaterd/site"
    for python in ("311", "312", "313", "314"):
        assert any(f"{site}/bsdiff4/core.cpython-{python}-" in name for name in files)
    for unwanted in ("uvicorn", "starlette", "uvloop", "rich", "pip", "setuptools"):
        assert not any(name.startswith(f"{site}/{unwanted}/") for name in files)
    assert not any("/tests/" in name or "__pycache__" in name for name in files)
    for wanted in (
        *("/usr/bin/updaterd", "/usr/lib/updaterd/guard"),
        *("/usr/lib/systemd/system/updaterd.service", "/etc/updaterd/updaterd.toml"),
        *("/usr/share/man/man1/updaterd.1.gz", "/usr/share/man/man1/updaterd-run.1.gz"),
        *("/usr/lib/sysusers.d/updaterd.conf", "/usr/lib/tmpfiles.d/updaterd.conf"),
        "/usr/share/bash-completion/completions/updaterd",
    ):
        assert wanted in files
    for row in files.values():
        assert "root/root" == row[1]
        assert "s" not in row[0], "a set-user-id file"
        assert row[0][8] != "w" or row[0].startswith("l"), "a file all may write"


def test_the_same_commit_gives_the_same_bytes(built, tmp_path):
    """Whoever rebuilds can compare; nobody has to trust the builder."""
    if os.environ.get("UPDATERD_BUILT"):
        pytest.skip("comparing needs the packages as built, not UPDATERD_BUILT")
    again = packages.build(tmp_path)
    for name in ("updaterd", "updaterd-feed"):
        first, second = (
            hashlib.sha256(deb(folder, name).read_bytes()).hexdigest()
            for folder in (built, again)
        )
        assert first == second, name
