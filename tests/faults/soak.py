# SPDX-License-Identifier: Apache-2.0
"""Kill a daemon and its workers at random under a stream of releases.

    python tests/faults/soak.py --kills 1000

Every release is pushed and announced; half of them fail their health check. The
daemon runs all the time and is killed, with SIGKILL, at random instants: sometimes
only its worker, sometimes only the daemon, mostly both. It is started again at once.
At every kill `current` must lead to a release, byte for byte. At the end, left in
peace, the machine must come to the newest good release, and the inbox must hold every
event that the feed ever sent, once.
"""

import argparse
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.releases import Releases
from fakes.trees import snapshot
from fakes.waiting import eventually


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    return found


class Soak:
    """One site, one machine, one daemon that is killed again and again."""

    def __init__(self, root: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.releases = Releases(root)
        self.pushed = self.kills = self.mixed = 0
        self.newest_good = ""
        self.push(good=True)
        self.machine = self.releases.machine(root / "machine")
        self.machine("update", "acme")

    def push(self, *, good: bool) -> None:
        self.pushed += 1
        version = f"{self.pushed}.0.0"
        self.releases.push(version, "--deltas", "2", healthy=good, announced=True)
        if good:
            self.newest_good = version

    def kill(self) -> None:
        """Kill something at this instant, and look at what it left."""
        self.kills += 1
        daemon = self.machine.daemon
        workers = children(daemon.pid)
        what = self.draw.choice(("both", "both", "worker", "daemon"))
        if what != "daemon":
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if what != "worker":
            daemon.kill()
            daemon.wait()
            self.machine.start()
        current = self.machine.current
        # one look at the link: it may move while the tree is read
        tree = current.resolve()
        if snapshot(tree) not in self.releases.trees.values():
            self.mixed += 1
            print(f"MIXED: {tree.name} after {what}", flush=True)

    def run(self, kills: int, every: int) -> None:
        self.machine.start()
        while self.kills < kills:
            if self.kills % every == 0:
                self.push(good=self.draw.random() < 0.5)
            time.sleep(self.draw.uniform(0.05, 1.5))
            self.kill()
            if self.kills % 50 == 0:
                print(f"{self.kills} kills, {self.pushed} releases", flush=True)

    def settle(self) -> list[str]:
        """Leave the machine in peace; return what is not right then."""
        self.push(good=True)
        found = [f"{self.mixed} mixed trees"] if self.mixed else []

        def newest() -> bool:
            return self.machine.running == self.newest_good

        try:
            eventually(newest, within_s=300, event="the newest good release")
        except AssertionError as error:
            found.append(str(error))
        self.machine.stop()
        if snapshot(self.machine.current) != self.releases.trees[self.newest_good]:
            found.append("the tree is not the newest good release's, byte for byte")
        return [*found, *self._events()]

    def _events(self) -> list[str]:
        path = self.machine.root / "state" / "state.db"
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute(
                "SELECT version, count(*) FROM inbox "
                "WHERE event = 'update_available' GROUP BY version"
            ).fetchall()
        # the first was announced before the machine knew the feed
        wanted = {f"{number}.0.0" for number in range(2, self.pushed + 1)}
        seen = dict(rows)
        lost = sorted(wanted - set(seen))
        twice = sorted(version for version, count in seen.items() if count > 1)
        return [
            *([f"events lost: {lost}"] if lost else []),
            *([f"events taken twice: {twice}"] if twice else []),
        ]

    def close(self) -> None:
        self.machine.stop()
        self.releases.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--every", type=int, default=8, help="kills for each release")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    began = time.monotonic()
    soak = Soak(root, arguments.seed)
    try:
        soak.run(arguments.kills, arguments.every)
        problems = soak.settle()
    finally:
        soak.close()
    took = time.monotonic() - began
    print(*problems, sep="\n")
    print(
        f"{soak.kills} kills, {soak.pushed} releases, {soak.mixed} mixed trees, "
        f"{len(problems)} problems, ended at {soak.machine.running}, {took:.0f} s"
    )
    if not problems:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
