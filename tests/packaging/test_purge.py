# SPDX-License-Identifier: Apache-2.0
"""Purged, nothing of any of its daemons stays, and nothing of others goes."""

import re
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "packaging/scripts"
OURS = (
    "var/lib/updaterd/state.db",
    "var/cache/updaterd/bundles/x",
    "run/updaterd/status.json",
    "etc/polkit-1/rules.d/50-updaterd.rules",
    "etc/tmpfiles.d/updaterd-products.conf",
    "etc/systemd/system/updaterd.service.d/50-products.conf",
    "var/lib/updaterd-lab/state.db",
    "var/cache/updaterd-lab/bundles/x",
    "run/updaterd-lab/status.json",
    "etc/polkit-1/rules.d/50-updaterd@lab.rules",
    "etc/tmpfiles.d/updaterd@lab-products.conf",
    "etc/systemd/system/updaterd@lab.service.d/50-products.conf",
    "etc/systemd/system/multi-user.target.wants/updaterd@lab.service",
    "etc/systemd/system/sockets.target.wants/updaterd-api.socket",
    "etc/systemd/system/sockets.target.wants/updaterd-api@lab.socket",
    "var/cache/updaterd-granted/x",
    "etc/tmpfiles.d/updaterd@granted-products.conf",
)
OTHERS = (
    "var/lib/updaterd-feed/events.db",
    "var/cache/updaterd-feed/x",
    "var/lib/updaterd-exporter/data",
    "etc/updaterd-lab/updaterd.toml",
    "etc/systemd/system/updaterd@lab.service.d/90-own.conf",
    "opt/acme/releases/1/bin/acme",
    "etc/systemd/system/multi-user.target.wants/updaterd-feed.service",
)


@pytest.fixture
def root(tmp_path):
    for name in (*OURS, *OTHERS):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "root"


def run(root, argument):
    """The script as dpkg calls it, its absolute paths below a folder."""
    text = (SCRIPTS / "postrm").read_text()
    script = root.parent / "postrm"
    moved = re.sub(r"(?<![\w}*$])/(var|etc|run)/", rf"{root}/\1/", text)
    script.write_text(moved)
    return subprocess.run(
        ["/bin/sh", script, argument], capture_output=True, text=True, check=True
    ).stderr


def left(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_purge_leaves_nothing_of_any_daemon_and_all_of_others(root):
    said = run(root, "purge")

    assert set(OTHERS) == left(root)
    assert "/etc/updaterd-lab was left" in said


@pytest.mark.parametrize("package", ["", "feed-"])
def test_a_package_that_goes_disables_all_of_its_units(package):
    """A link to a unit that is gone stays for ever, and a socket listens for nobody."""
    stopped = (SCRIPTS / f"{package}prerm").read_text()
    theirs = ("updaterd-feed", "updaterd-refresh", "updaterd-watch")
    for unit in (SCRIPTS.parents[1] / "systemd").glob("updaterd*"):
        is_theirs = unit.name.startswith(theirs)
        can_be_enabled = "[Install]" in unit.read_text() and "@" not in unit.name
        if can_be_enabled and is_theirs == (package == "feed-"):
            assert unit.name in stopped


def test_removal_keeps_everything(root):
    run(root, "remove")

    assert {*OURS, *OTHERS} == left(root)
