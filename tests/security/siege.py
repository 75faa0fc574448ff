# SPDX-License-Identifier: Apache-2.0
"""A real daemon, its workers and a real feed, below a repository that turns hostile.

What a test sees is what an owner sees: the tree on disk, the processes, `status.json`
and the log. `provoke` makes the daemon look; `recovers` proves that it goes on.
"""

import contextlib
import json
from contextlib import closing
from pathlib import Path

from fakes import origin as origins
from fakes.rig import Rig
from fakes.site import Site
from fakes.waiting import eventually

from updaterd.net import Fetcher
from updaterd.release import announce
from updaterd.store.records import Records
from updaterd.store.schema import open_for_reading


class Siege:
    def __init__(self, folder: Path, *, ballast: bytes = b""):
        self.site = Site(folder / "site")
        self.site.start()
        self.rig = Rig(folder, feed=self.site.feed_url, ballast=ballast)
        self.machine = self.rig.machine
        self.attacks = 0
        self._number = 0
        self._edition = 0
        self._failures = 0
        self.rig.push("1.0.0")
        self.machine.start()
        self.installs("1.0.0")
        self.before_kib = self.resident_kib()

    def close(self):
        self.rig.close()
        self.site.hard_stop()

    def tell(self):
        """Announce with the publisher's token; each time as another event."""
        self._edition += 1
        body = {
            "schema": 1,
            "product": "acme",
            "channel": "stable",
            "version": self.rig.published,
            "seq": 1,
            "edition": self._edition,
        }
        with Fetcher() as fetcher:
            raw = json.dumps(body).encode()
            announce.announce(fetcher, self.site.feed_url, self.site.token, raw)

    def published_status(self) -> dict:
        """Return what everybody on the machine may read."""
        path = self.machine.root / "run" / "status.json"
        with contextlib.suppress(FileNotFoundError):
            return json.loads(path.read_bytes())
        return {}

    def _checked_at(self) -> float:
        connection = open_for_reading(self.machine.root / "state" / "state.db")
        if connection is None:
            return 0.0
        with closing(connection):
            return Records(connection).product("acme").checked_at or 0.0

    def push(self) -> str:
        """Publish the next good release."""
        self._number += 1
        self.rig.push(f"1.{self._number}.0")
        return self.rig.published

    @contextlib.contextmanager
    def unseen(self):
        """Show machines all that is published herein at once, at the end."""
        now = (self.rig.publisher.metadata / "timestamp.json").read_bytes()
        rule = (r"timestamp\.json", origins.body(now))
        self.rig.origin.rules.append(rule)
        yield
        self.rig.origin.rules.remove(rule)

    def provoke(self, codes: frozenset[str], what: str) -> str:
        """Have the machine look; return the message under one of these codes.

        The daemon looks, twice; it then waits longer after each failure, so further
        variants are looked at by a worker started as an administrator would.
        """
        before, looked = self.rig.tree(), self._checked_at()
        self.attacks += 1
        self._failures += 1
        if self._failures > 2:
            outcome, told = self.rig.update("--retry")
            assert outcome["code"] in codes, (what, outcome)
            assert "Traceback" not in told
            assert told.replace("\n", "").isprintable()
            assert self.rig.tree() == before, what
            assert self.machine.daemon.poll() is None
            return outcome["reason"]
        self.tell()

        def reported() -> str | None:
            assert self.machine.daemon.poll() is None, self.machine.log()[-3000:]
            if self._checked_at() == looked:
                return None
            (found,) = self.published_status()["products"]
            error, decision = found["last_error"], found["decision"]
            if error and error["code"] in codes:
                return error["message"]
            return decision["reason"] if decision["code"] in codes else None

        said = eventually(
            reported, event=f"{what}: {self._standing()} {self.machine.log()[-2000:]}"
        )
        assert self.rig.tree() == before, what
        assert self.machine.daemon.poll() is None
        assert said.isprintable()
        return said

    def _standing(self) -> object:
        found = self.published_status().get("products", [{}])[0]
        return found.get("last_error"), found.get("decision")

    def installs(self, version: str):
        """Wait until the machine runs it, and says so."""

        def runs() -> bool:
            assert self.machine.daemon.poll() is None, self.machine.log()[-3000:]
            found = self.published_status().get("products", [{}])[0].get("installed")
            return bool(found and found["version"] == version)

        eventually(runs, event=f"{version}: {self.machine.log()[-2000:]}")
        assert self.machine.running == version
        self.rig.installed = version

    def recovers(self):
        """The server behaves again: the next good release installs."""
        self.rig.origin.behave()
        self.rig.heal()
        self.rig.heal = lambda: None
        version = self.push()
        if self._failures > 2:
            outcome, told = self.rig.update("--retry")
            assert outcome["result"] == "installed", (outcome, told)
        self._failures = 0
        self.tell()
        self.installs(version)
        log = self.machine.log()
        assert "Traceback" not in log
        assert log.replace("\n", "").isprintable()

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.machine.daemon.pid}/status").read_text()
        (line,) = [one for one in status.splitlines() if one.startswith("VmRSS")]
        return int(line.split()[1])
