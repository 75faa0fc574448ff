# SPDX-License-Identifier: Apache-2.0
"""A machine, a repository and whatever stands between them.

Releases are built, signed and published by the production code; the worker is the
command line; the server in between is an `Origin`, which can be told to misbehave.
"""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from fakes.machine import Machine
from fakes.origin import Origin
from fakes.repository import Publisher
from fakes.trees import make_tree, snapshot

from updaterd.release import paces, publish
from updaterd.release.workspace import this_platform

PLATFORM = this_platform()
TIME = 1_700_000_000
"""When everything in a release was last changed, unless a test says otherwise."""


class Rig:
    """`ballast` is a file that all releases share: it makes deltas worth taking."""

    def __init__(
        self,
        folder: Path,
        *,
        feed: str = "http://127.0.0.1:9/v1/events",
        ballast: bytes = b"",
    ):
        self.folder = folder
        self.ballast = {"data/ballast": ballast} if ballast else {}
        self.publisher = Publisher(folder / "ops", now=datetime.now(UTC))
        self.origin = Origin(self.publisher.public)
        self.installed = self.published = ""
        self.heal = lambda: None
        root = folder / "root.json"
        root.write_bytes(self.publisher.bootstrap)
        self.machine = Machine(
            folder / "machine",
            feed=feed,
            repository=self.origin.url,
            bootstrap=root,
        )

    def close(self):
        self.machine.stop()
        self.origin.__exit__()

    def push(
        self,
        version: str,
        *,
        channel="stable",
        deltas=1,
        bulk=0,
        floor=0,
        time=TIME,
        from_seq_min=0,
        pace=paces.NONE,
        offered=True,
    ):
        """Build and publish a real release, with so many equal bytes besides.

        All of it was last changed at `time`, as by a reproducible build.
        """
        tree = make_tree(
            self.folder / "trees" / version,
            {
                "bin/app": f"#!/bin/sh\necho {version}\n",
                "data/table": f"{version}\n" * 2000,
                "data/latest": "-> table",
                **self.ballast,
                **({"data/bulk": b"1" * bulk} if bulk else {}),
            },
        )
        for path in tree.rglob("*"):
            os.utime(path, (time, time), follow_symlinks=False)
        space = self.publisher.space
        order = publish.Order(
            product="acme",
            version=version,
            platform=PLATFORM,
            deltas=deltas,
            floor_seq=floor,
            from_seq_min=from_seq_min,
            pace=pace,
        )
        built = publish.prepare(space, tree, order, now=self.publisher.now)
        repository = self.publisher.open()
        catalog = publish.catalog_of(space, repository, "acme")
        added = publish.enter(catalog, order, built)
        if offered:
            pointer = catalog.pointer(channel)
            catalog.point(publish.offer(pointer, version, added.manifest.seq))
        repository.commit()
        self.published = version
        return added.manifest

    def copy(self, name: str) -> Path:
        """Keep what the repository says now, for an attacker to serve later."""
        return Path(shutil.copytree(self.publisher.public, self.folder / name))

    def serve_from(self, folder: Path, pattern: str = "."):
        """Answer from another directory, for the paths that match."""
        self.origin.misbehave(
            pattern, lambda handler: handler.file(folder / handler.path.lstrip("/"))
        )

    def update(self, *words: str) -> tuple[dict, str]:
        """Run the worker, a process; return its outcome and what it told a person."""
        done = self.machine("update", "acme", "--json", *words, expect=None)
        assert done.stdout, done.stderr
        outcome = json.loads(done.stdout.splitlines()[-1])
        if outcome["result"] == "installed":
            self.installed = outcome["version"]
        return outcome, done.stderr

    def tree(self) -> dict:
        """Return all that is installed, links and journalled releases included."""
        return snapshot(self.machine.app)
