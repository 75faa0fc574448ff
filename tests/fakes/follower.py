# SPDX-License-Identifier: Apache-2.0
"""A machine that follows a channel: the client's own look, and its own journal.

Trust layer, facts, planner and journal are the production code; only the network and
the files of a release are left out, so that thousands of looks are cheap.
"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fakes.machine import Machine
from fakes.worker import product_of, worker

from updaterd.core.decision import Act
from updaterd.core.lifecycle import State
from updaterd.net import NotFoundError
from updaterd.pipeline.decision import look
from updaterd.pipeline.run import Request, Run
from updaterd.trust.client import TrustClient


class Shelf:
    """Answers as `net.Fetcher.get` does, from a folder: no connection is made."""

    deadline_s = 60.0

    def __init__(self, address: str, folder: Path):
        self.address, self.folder = address, folder

    def get(self, url: str, *, limit: int, **_) -> bytes:
        path = self.folder / url.removeprefix(self.address).lstrip("/")
        if not path.is_file():
            raise NotFoundError(404, url)
        data = path.read_bytes()
        assert len(data) <= limit
        return data


class Follower:
    def __init__(
        self, folder: Path, *, public, bootstrap, platform, name, clock, channel
    ):
        repository = "http://127.0.0.1:9/repo"
        root = folder / "root.json"
        folder.mkdir(parents=True)
        root.write_bytes(bootstrap)
        machine = Machine(
            folder / "machine",
            feed="http://127.0.0.1:9/v1/events",
            repository=repository,
            bootstrap=root,
            product_extra=f'channel = "{channel}"',
        )
        self.platform, self.name = platform, name
        self._opened = ExitStack()
        services = self._opened.enter_context(worker(machine, clock=clock))

        def trust():
            return TrustClient(
                cache=folder / "trust",
                bootstrap=bootstrap,
                repository=repository,
                fetcher=Shelf(repository, public),
                demo=True,
            )

        self.services = replace(
            services, platform=platform, machine_id=name, trust=trust
        )
        self.product = product_of(machine)

    @property
    def installed(self):
        """Return the release that its journal says it runs, or None."""
        return self.services.journal.installed(self.product.name)

    def see(self):
        """Ask the repository, and decide."""
        return look.take(Run(self.product, self.services), Request())

    def want(self, sight):
        """Return the manifest of what was decided for; None: nothing is to be done."""
        if not isinstance(sight.decision, Act):
            return None
        return look.choose(sight, self.product.name).manifest

    def look(self):
        """See, and install what is wanted; return what was seen."""
        sight = self.see()
        manifest = self.want(sight)
        if manifest is not None:
            self._install(sight, manifest)
        return sight

    def _install(self, sight, manifest):
        journal, note = self.services.journal, self.services.note("test", "followed")
        ident = journal.begin(
            self.product.name,
            self.product.channel,
            sight.decision.target,
            "poll",
            note,
        )
        journal.claim(ident, sight.view.word(manifest))
        journal.move(ident, State.PLANNED, note)
        journal.stage(ident, "", manifest.tree, note)
        journal.move(ident, State.ACTIVATING, note)
        journal.move(ident, State.PROBATION, note)
        journal.install(ident, manifest.tree, note)

    def close(self):
        self._opened.close()
