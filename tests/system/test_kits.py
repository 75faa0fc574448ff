# SPDX-License-Identifier: Apache-2.0
"""From nothing to a running application by one command, and away again.

A .deb on a booted Debian 12, as root's service. No updaterd is installed before. The
shell's installer is tested in tests/unit/release/kits.
"""

import random
import shutil
import subprocess

import pytest
from fakes.machine import cli
from fakes.origin import Origin
from fakes.site import Site
from fakes.trees import make_tree
from fakes.waiting import eventually

from .conftest import PACKAGES, Booted

UNIT = """
[Unit]
Description=An application
[Service]
ExecStart={root}/current/bin/acme
[Install]
WantedBy={target}
"""
KIT = """
[kit]
version = "1.0"
title = "Acme"
publisher = "Acme Ltd <it@acme.example>"
unit_files = ["acme.service"]
[updaterd]
url = "{kits}"
packages = ["{package}"]
[feed]
url = "{address}/v1/events"
backoff_min_s = 0.1
backoff_max_s = 0.5
[trust]
repository = "{address}/repo"
[download]
min_free = "1MiB"
[products.acme]
root = "/opt/acme"
units = ["acme.service"]
health = {{ command = ["{{root}}/current/bin/acme", "--once"], timeout_s = 20 }}
"""


class Ops(Site):
    """A publisher of the prod profile: kits of others are refused by machines."""

    def __init__(self, root, package):
        self.root = root
        self.workspace, self.state = root / "ops", root / "feed"
        self.public = self.workspace / "public"
        self.product, self.channel = "acme", "stable"
        self.server, self.address, self._port = None, "", 0
        cli(
            *("release", "init", self.workspace, "--profile", "prod"),
            *("--product", "acme", "--channel", "stable"),
        )
        scope = ("--scope", "publish:acme/stable")
        made = cli("token", "create", "--state", self.state, *scope)
        self.token_file = root / "token"
        self.token_file.write_text(made.stdout.strip())
        self.token_file.chmod(0o600)
        self.start()
        self.release("1.0.0")
        (root / "acme.service").write_text(UNIT)
        self.kits = root / "kits"
        self.kits.mkdir()
        self.origin = Origin(self.kits)
        (root / "kit.toml").write_text(
            KIT.format(address=self.address, package=package, kits=self.origin.url)
        )
        words = ("release", "kit", "--repo", self.workspace, "--product", "acme")
        more = ("--kit", root / "kit.toml", "-o", self.kits)
        cli(*words, *more)
        cli(*words, *more, "--with-release")

    def release(self, version):
        tree = make_tree(
            self.root / "trees" / version,
            {
                "bin/acme": '#!/bin/sh\n[ "$1" = --once ] || exec sleep infinity\n',
                "lib/data": random.Random(1).randbytes(100_000),
                "VERSION": version,
            },
        )
        self.push(tree, version)


@pytest.fixture(scope="module")
def ops(tmp_path_factory, built):
    (package,) = built.glob("updaterd_*.deb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPDATERD_PASSPHRASE", "correct horse battery staple")
        site = Ops(tmp_path_factory.mktemp("ops"), package)
        yield site
        site.stop()
        site.origin.__exit__()


@pytest.fixture(scope="module", params=["bookworm"], ids=["Debian 12"])
def machine(request, debian, ops, built, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param) / "root"
    root.mkdir(mode=0o755)
    root.parent.chmod(0o755)
    archive = debian(request.param, PACKAGES)
    subprocess.run(["tar", "-C", root, "-xf", archive], check=True)
    shutil.copytree(ops.kits, root / "kits")
    booted = Booted(root, root.parent / "console")
    try:
        booted.wait_until_up()
        yield booted
    finally:
        booted.stop()
        shutil.rmtree(root, ignore_errors=True)


def traces(machine, *places):
    """Return all that is there of the kit."""
    return sorted(
        str(path.relative_to(machine.root))
        for place in places
        for path in (machine.root / place).rglob("*")
        if "acme" in str(path.relative_to(machine.root)) and not path.is_symlink()
    )


MACHINE = (
    "etc",
    "opt",
    "usr",
    "var/lib",
    "var/cache",
    "run/systemd",
    "run/updaterd-acme",
)


def current(machine, root="opt/acme"):
    link = machine.root / root / "current"
    return link.readlink().name if link.is_symlink() else None


def is_running(machine, wanted):
    assert wanted == current(machine)
    assert "active" == machine.show("acme", "ActiveState")
    assert "enabled" == machine.show("acme", "UnitFileState")
    assert "active" == machine.show("updaterd@acme", "ActiveState")


def test_one_package_from_nothing_and_away(machine, ops):
    """apt install, a pushed release, apt purge: only the application's data is left."""
    before = traces(machine, *MACHINE)
    deb, own = "acme-setup_1.0_all.deb", next(ops.kits.glob("updaterd_*.deb")).name
    install = ("apt-get", "-y", "--no-install-recommends", "install")
    print(machine.must(*install, f"/kits/{own}", f"/kits/{deb}"))

    is_running(machine, "1.0.0")
    assert "acme" in machine.must("updaterd", "status")
    ops.release("1.1.0")
    eventually(lambda: current(machine) == "1.1.0", within_s=60)
    machine.must("mkdir", "/opt/acme/data")
    machine.write("/opt/acme/data/letter", "mine")
    print(machine.must("apt-get", "-y", "purge", "acme-setup"))

    left = [path for path in traces(machine, *MACHINE) if path not in before]
    assert ["opt/acme", "opt/acme/data", "opt/acme/data/letter"] == left
    assert "inactive" == machine.show("updaterd@acme", "ActiveState")
    shutil.rmtree(machine.root / "opt/acme")
