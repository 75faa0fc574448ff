# SPDX-License-Identifier: Apache-2.0
"""A site with releases, and a machine that is put back as it was for each test."""

import json
import random
import shutil
from pathlib import Path

from fakes.machine import Machine
from fakes.site import Site
from fakes.trees import make_tree, snapshot


class Releases:
    """1.0.0 is installed, 1.1.0 is offered; more can be pushed."""

    def __init__(self, root: Path, *, product: str = "acme"):
        self.root = root
        self.product = product
        self.site = Site(root / "site", product=product)
        self.site.start()
        self.trees: dict[str, dict] = {}
        self.folders: dict[str, Path] = {}

    def push(
        self, version: str, *options, healthy=True, announced=False, size=100_000
    ) -> None:
        tree = self.root / "trees" / version
        make_tree(
            tree,
            {
                "bin/healthcheck": f"#!/bin/sh\nexit {0 if healthy else 3}\n",
                "bin/app": f"#!/bin/sh\necho {version}\n" * 50,
                "lib/shared.bin": random.Random(1).randbytes(16_384),
                "lib/changing.bin": version.encode() + random.Random(2).randbytes(size),
                "lib/link": "-> shared.bin",
                f"only-in-{version}": version,
            },
        )
        self.site.push(tree, version, *options, announce=announced)
        self.trees[version] = snapshot(tree)
        self.folders[version] = tree

    def machine(self, root: Path, **options: object) -> Machine:
        return Machine(
            root,
            feed=self.site.feed_url,
            repository=f"{self.site.address}/repo",
            bootstrap=self.site.bootstrap,
            product=self.product,
            health=[str(root / f"opt/{self.product}/current/bin/healthcheck")],
            **options,
        )

    def seq(self, version: str) -> int:
        """The place of a release in the order, as it was signed."""
        for path in self.site.public.rglob("*.json"):
            document = json.loads(path.read_bytes())
            if isinstance(document, dict) and document.get("version") == version:
                return document["seq"]
        raise KeyError(version)

    def close(self) -> None:
        self.site.hard_stop()


def clone(template: Path, root: Path) -> None:
    """Copy a machine's folder to where it lives; its paths are absolute."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root, symlinks=True)
