# SPDX-License-Identifier: Apache-2.0
"""A publisher of kits, in each form, and of what comes after them by push."""

import random
import subprocess

from fakes.machine import cli
from fakes.origin import Origin
from fakes.site import Site
from fakes.trees import make_tree

# the shell keeps it open: what runs from it can be seen
ACME = """#!/bin/sh
[ "$1" = --once ] || while :; do sleep 5; done
"""
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
metered_max = "64KiB"
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
        self.package = package
        self._releases = 0
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
        self.release()
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

    @property
    def newest(self):
        return f"1.{self._releases - 1}.0"

    def release(self, size=100_000):
        """Push the next release: `size` bytes are new, others are as ever."""
        self._releases += 1
        tree = make_tree(
            self.root / "trees" / self.newest,
            {
                "bin/acme": ACME,
                "lib/data": random.Random(1).randbytes(100_000),
                "lib/new": random.Random(self.newest).randbytes(size),
                "VERSION": self.newest,
            },
        )
        self.push(tree, self.newest)
        return self.newest

    def archive(self):
        """Make an apt repository of the packages beside the kits, with a key."""
        home = self.root / "gnupg"
        home.mkdir(mode=0o700)
        env = {"GNUPGHOME": str(home), "PATH": "/usr/bin:/bin"}
        who = "Acme archive <it@acme.example>"
        quick = ("--quick-gen-key", who, "default", "sign", "never")
        subprocess.run(
            ["gpg", "--batch", "--quiet", "--passphrase", "", *quick],
            env=env,
            check=True,
        )
        debs = (self.package, self.kits / "acme-setup_1.0_all.deb")
        cli(
            *("release", "apt-repo", self.kits / "apt", "--key", "it@acme.example"),
            *("--url", f"{self.origin.url}/apt", "--origin", "Acme", "--deb", *debs),
            env=env,
        )
