# SPDX-License-Identifier: Apache-2.0
"""A server with releases, a machine that is put back, and a look at what is left.

For the harnesses that interrupt a real update (tests/faults): the update runs in a
fork of a process that has imported everything, so a run takes a fraction of a second.
"""

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from fakes.machine import Machine
from fakes.site import Site
from fakes.trees import make_tree, snapshot

UPDATE = ("update", "acme")
NOW = ("update", "acme", "--now")


class Tracer(Protocol):
    """What is attached to a fork before it runs a command."""

    def prepare(self) -> None:
        """Change the fork before it becomes the command."""

    def attach(self, pid: int) -> None:
        """Begin, before the fork goes on."""

    def detach(self) -> None:
        """End, after the fork has."""


class Bench:
    """1.0.0 is installed, 1.1.0 is offered.

    Args:
        root: an empty folder.
        healthy: whether 1.1.0 passes its health check.
        first: nothing is installed yet, 1.0.0 is offered.
    """

    words: tuple[str, ...] = UPDATE
    """The command that faults interrupt."""
    follows = False
    """Whether threads and processes of the command change files, whose calls no count
    of one process can tell."""

    def __init__(self, root: Path, *, healthy: bool = True, first: bool = False):
        self.root = root
        self.healthy = healthy
        self.first = first
        self.site = Site(root / "site")
        self.site.start()
        self.trees: dict[str, dict] = {}
        self.machine = Machine(
            root / "machine",
            feed=self.site.feed_url,
            repository=f"{self.site.address}/repo",
            bootstrap=self.site.bootstrap,
            health=[str(root / "machine/opt/acme/current/bin/healthcheck")],
        )
        if first:
            self.push("1.0.0", healthy=healthy)
        else:
            self.push("1.0.0")
            self.machine(*UPDATE)
            self.push("1.1.0", healthy=healthy)
        shutil.copytree(root / "machine", root / "before", symlinks=True)

    @property
    def target(self) -> str | None:
        """The release at which everything must end."""
        good, old = ("1.0.0", None) if self.first else ("1.1.0", "1.0.0")
        return good if self.healthy else old

    def push(self, version: str, *, healthy: bool = True) -> None:
        number = int(version.split(".")[1])
        tree = make_tree(
            self.root / "trees" / version,
            {
                "bin/healthcheck": f"#!/bin/sh\nexit {0 if healthy else 3}\n",
                "bin/app": f"#!/bin/sh\necho {version}\n" * 50,
                "lib/shared.bin": random.Random(1).randbytes(16_384),
                "lib/changing.bin": bytes([number])
                + random.Random(2).randbytes(100_000),
                "lib/link": "-> shared.bin",
                f"only-in-{number}": version,
            },
        )
        self.site.push(tree, version, announce=False)
        self.trees[version] = snapshot(tree)

    def reset(self) -> None:
        shutil.rmtree(self.root / "machine", ignore_errors=True)
        shutil.copytree(self.root / "before", self.root / "machine", symlinks=True)

    def keep_as_before(self) -> None:
        """Start later points from the machine as it is now."""
        shutil.rmtree(self.root / "before")
        shutil.copytree(self.root / "machine", self.root / "before", symlinks=True)

    def close(self) -> None:
        self.site.hard_stop()

    def prepare(self) -> None:
        """Change each fork before it becomes the command: nothing, here."""

    def options(self, words: tuple[str, ...]) -> list[str]:
        """What a command is told besides its words: where the machine is."""
        return self.machine.options

    def run(
        self, words: tuple[str, ...] | None = None, tracer: Tracer | None = None
    ) -> int:
        """Run a command in a fork; return its exit code, or minus the signal."""
        with self.started(words or self.words, tracer) as pid:
            _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    @contextmanager
    def started(
        self, words: tuple[str, ...], tracer: Tracer | None = None
    ) -> Iterator[int]:
        """Yield the process id of a fork that runs a command; the caller waits."""
        ready, go = os.pipe()
        log = self.root / "output"

        def prepare() -> None:
            self.prepare()
            if tracer is not None:
                tracer.prepare()

        pid = os.fork()
        if pid == 0:
            _child(ready, go, log, prepare, [*words, *self.options(words)])
        os.close(ready)
        if tracer is not None:
            tracer.attach(pid)
        os.write(go, b"x")
        os.close(go)
        yield pid
        if tracer is not None:
            tracer.detach()

    def output(self) -> str:
        """What the last run said, at its end."""
        return (self.root / "output").read_text(errors="replace")[-800:]

    # -- what is left of it

    def settle(self, code: int) -> list[str]:
        """Go on after a run that a fault ended with `code`; return what is wrong."""
        return self.recover() or self.there_and_back()

    def recover(self) -> list[str]:
        """Run without faults until it is done; return what is not as it should be."""
        code = self.run(UPDATE)
        if code == 10:
            # a retry may be waiting for its time: a person says now
            code = self.run(NOW)
        if code != (0 if self.healthy else 30):
            return [f"recovery ended with {code}: {self.output()}"]
        return self.unsettled(self.target)

    def there_and_back(self) -> list[str]:
        """Return what is wrong with the next changes of release."""
        if not self.healthy or self.first:
            return []
        return self.well(("rollback", "acme"), "1.0.0") or self.well(
            ("update", "acme", "--retry"), "1.1.0"
        )

    def well(self, words: tuple[str, ...], target: str | None) -> list[str]:
        """Run a command without faults; return what is wrong with it or after it."""
        code = self.run(words)
        if code != 0:
            return [f"afterwards, {' '.join(words)} ended with {code}: {self.output()}"]
        problems = self.unsettled(target)
        return [f"afterwards, {' '.join(words)}", *problems] if problems else []

    def broken_tree(self) -> list[str]:
        """Return what is wrong with what `current` leads to, whatever it is."""
        current = self.machine.current
        if not current.is_dir():
            if self.first and not current.is_symlink():
                return []
            return ["`current` leads nowhere"]
        tree = snapshot(current)
        if tree not in self.trees.values():
            expected = self.trees.get(self.machine.running, {})
            differ = [
                p for p in tree.keys() | expected if tree.get(p) != expected.get(p)
            ]
            return [f"`current` ({self.machine.running}) is not a release: {differ}"]
        return []

    def unsettled(self, target: str | None) -> list[str]:
        """Return what is not as it should be after a run that went well."""
        from updaterd.store.records import Records
        from updaterd.store.schema import open_for_reading

        app, problems = self.machine.app, []
        connection = open_for_reading(self.machine.root / "state/state.db")
        records = Records(connection)
        installed = records.installed("acme")
        if target is None:
            if self.machine.current.is_symlink() or installed is not None:
                problems.append(f"nothing should be installed, {installed} is")
        elif snapshot(self.machine.current) != self.trees[target]:
            problems.append(f"the tree is not {target}'s, byte for byte")
        if (installed and installed.version) != self.machine.running:
            problems.append(
                f"the journal says {installed}, disk {self.machine.running}"
            )
        if records.open_deployment("acme") is not None:
            problems.append(f"still open: {records.open_deployment('acme')}")
        connection.close()
        problems += [
            f"{release} is not a release"
            for release in (app / "releases").iterdir()
            if snapshot(release) != self.trees.get(release.name)
        ]
        leftovers = [
            p.name for p in (app / ".updaterd").iterdir() if p.name != "manifests"
        ]
        leftovers += [path.name for path in app.glob(".*.new")]
        return [*problems, *([f"left over: {leftovers}"] if leftovers else [])]

    def blocked(self) -> dict[str, str]:
        """Return the code for which each blocked release is blocked."""
        from updaterd.store.records import Records
        from updaterd.store.schema import open_for_reading

        connection = open_for_reading(self.machine.root / "state/state.db")
        failures = Records(connection).failed("acme").values()
        connection.close()
        return {row.version: row.code for row in failures}

    def state(self) -> str:
        """The state of the open deployment, "" without one."""
        from updaterd.store.records import Records
        from updaterd.store.schema import open_for_reading

        connection = open_for_reading(self.machine.root / "state/state.db")
        if connection is None:
            return ""
        deployment = Records(connection).open_deployment("acme")
        connection.close()
        return "" if deployment is None else str(deployment.state)


def _child(
    ready: int, go: int, log: Path, prepare: Callable[[], None], words: list[str]
) -> None:
    """Be `updaterd WORDS` in this fork; never returns."""
    code = 70
    try:
        os.close(go)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.read(ready, 1)
        from updaterd.cli import main

        prepare()
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001 # a fork must not run the harness
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def is_traced(pid: int) -> bool:
    """Tell whether a debugger is attached to a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status


def until_traced(pid: int, has_ended: Callable[[], bool]) -> bool:
    """Wait until a debugger is attached; tell whether it is, rather than gone."""
    while not is_traced(pid):
        if has_ended():
            return False
        time.sleep(0.001)
    return True
