"""Fail a real update at every system call that changes a file, recover, check.

    python tests/faults/killpoints.py                 a sample, about two minutes
    python tests/faults/killpoints.py --all           every point; prints the figure
    python tests/faults/killpoints.py --only pwrite64:17:kill     one, to look into

A process that has imported everything forks for each point, strace attaches to the
fork (which is the real interpreter, not a shim), and the fork runs `updaterd update`
as typed. The first, traced run says which calls there are; the later ones get a
fault injected before one of them:

    kill        SIGKILL
    ENOSPC, EIO, once or from there on (`+`)

Traps: with --seccomp-bpf strace ignores signal injection in silence; `when=N`
counts per thread, so the N-th call of a name is that of whichever process gets to N
first. Which one that is follows from the traced run; calls that cannot be reached
that way are counted and reported.

After each fault, before anything is repaired: `current` must lead to a tree that is
one of the releases, byte for byte. Then, without faults: the next update must end
well at the newest good release, journal and disk must agree, nothing may be left
over, and a roll back and another update after that must work too.
"""

import argparse
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # as a command; pytest has its own pythonpath
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.machine import Machine
from fakes.site import Site
from fakes.trees import make_tree, snapshot

CHANGING = (
    "openat,creat,write,pwrite64,writev,pwritev,pwritev2,rename,renameat,renameat2,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,link,linkat,fsync,"
    "fdatasync,syncfs,ftruncate,truncate,chmod,fchmod,fchmodat,copy_file_range,"
    "fallocate,ioctl"
)
MODES = ("kill", "ENOSPC", "ENOSPC+", "EIO", "EIO+")
_CALL = re.compile(r"^(\d+)\s+(\w+)\((.*)")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of `name` in whichever thread gets there first."""

    name: str
    number: int
    mode: str
    call: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.number}:{self.mode}"

    @property
    def inject(self) -> str:
        when = f"when={self.number}" + ("+" if self.mode.endswith("+") else "")
        fault = (
            "signal=KILL"
            if self.mode == "kill"
            else f"error={self.mode.removesuffix('+')}"
        )
        return f"inject={self.name}:{fault}:{when}"


class Bench:
    """A server with three releases, and a machine that is put back for each point."""

    def __init__(self, root: Path, *, healthy: bool = True) -> None:
        self.root = root
        self.healthy = healthy
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
        self._push("1.0.0")
        self.machine("update", "acme")
        self._push("1.1.0", healthy=healthy)
        shutil.copytree(root / "machine", root / "before", symlinks=True)
        self.target = "1.1.0" if healthy else "1.0.0"

    def _push(self, version: str, *, healthy: bool = True) -> None:
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

    # -- runs

    def run(self, *strace: str, words: tuple[str, ...] = ("update", "acme")) -> int:
        """Run a command in a fork, under strace when options are given.

        Returns:
            The exit code, or minus the signal.
        """
        ready, go = os.pipe()
        log = self.root / "said"
        pid = os.fork()
        if pid == 0:
            _child(ready, go, log, self.before_command, [*words, *self.machine.options])
        os.close(ready)
        tracer = None
        if strace:
            tracer = subprocess.Popen(
                ["strace", "-f", "-qq", "-p", str(pid), *strace],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            while not _is_traced(pid):
                if tracer.poll() is not None:
                    os.kill(pid, signal.SIGKILL)
                    raise RuntimeError(tracer.stderr.read().decode())
        os.write(go, b"x")
        os.close(go)
        _, status = os.waitpid(pid, 0)
        if tracer is not None:
            tracer.wait()
            tracer.stderr.close()
        return os.waitstatus_to_exitcode(status)

    def calls(self, words: tuple[str, ...] = ("update", "acme")) -> list[Point]:
        """Return the calls that change files and can be hit, from a traced run."""
        self.reset()
        trace = self.root / "trace"
        self.run("-y", "-s0", "-o", str(trace), "-e", f"trace={CHANGING}", words=words)
        seen: Counter[tuple[str, str]] = Counter()
        first: dict[tuple[str, int], str] = {}
        for line in trace.read_text(errors="replace").splitlines():
            found = _CALL.match(line)
            if found is None:
                continue
            thread, name, rest = found.groups()
            seen[thread, name] += 1
            first.setdefault((name, seen[thread, name]), rest)
        return [
            Point(name, number, "", rest[:120])
            for (name, number), rest in first.items()
            if self._changes(name, rest)
        ]

    def _changes(self, name: str, rest: str) -> bool:
        if name in ("openat", "creat"):
            return "O_CREAT" in rest or "O_TRUNC" in rest
        if name == "ioctl":
            return "FICLONE" in rest
        if name in ("write", "pwrite64", "writev", "pwritev", "pwritev2"):
            return f"<{self.root}" in rest
        return True

    def before_command(self) -> None:
        """Change the fork before it becomes the command: nothing, here."""

    # -- one point

    def problems(self, point: Point, words=("update", "acme")) -> list[str]:
        """Return what is wrong after the fault and after recovery."""
        self.reset()
        self.run("-o", "/dev/null", "-e", f"trace={point.name}", "-e", point.inject,
                 words=words)  # fmt: skip
        found = self.broken_tree()
        code = self.run()
        if code == 10:
            # a retry may be waiting for its time: a person says now
            code = self.run(words=("update", "acme", "--now"))
        if code != (0 if self.healthy else 30):
            found.append(f"recovery ended with {code}: {self._said()}")
        found += self.unsettled(self.target)
        return found or self._afterwards()

    def _afterwards(self) -> list[str]:
        """Return what is wrong with the next changes of release, there and back."""
        if not self.healthy:
            return []
        for words, target in (
            (("rollback", "acme"), "1.0.0"),
            (("update", "acme", "--retry"), "1.1.0"),
        ):
            code = self.run(words=words)
            if code != 0:
                return [f"afterwards, {words[0]} ended with {code}: {self._said()}"]
            if found := self.unsettled(target):
                return [f"afterwards, {words[0]}", *found]
        return []

    def broken_tree(self) -> list[str]:
        """Return what is wrong with what `current` leads to, whatever it is."""
        current = self.machine.current
        if not current.is_dir():
            return ["`current` leads nowhere"]
        found = snapshot(current)
        if found not in self.trees.values():
            wanted = self.trees.get(self.machine.running, {})
            differ = [p for p in found.keys() | wanted if found.get(p) != wanted.get(p)]
            return [f"`current` ({self.machine.running}) is not a release: {differ}"]
        return []

    def unsettled(self, target: str) -> list[str]:
        """Return what is not as it should be after a run that went well."""
        from updaterd.store.records import Records
        from updaterd.store.schema import open_for_reading

        app, found = self.machine.app, []
        connection = open_for_reading(self.machine.root / "state/state.db")
        records = Records(connection)
        installed = records.installed("acme")
        if snapshot(self.machine.current) != self.trees[target]:
            found.append(f"the tree is not {target}'s, byte for byte")
        if installed is None or installed.version != self.machine.running:
            found.append(f"the journal says {installed}, disk {self.machine.running}")
        if records.open_deployment("acme") is not None:
            found.append(f"still open: {records.open_deployment('acme')}")
        connection.close()
        found += [
            f"{release} is not a release"
            for release in (app / "releases").iterdir()
            if snapshot(release) != self.trees.get(release.name)
        ]
        left = [p.name for p in (app / ".updaterd").iterdir() if p.name != "manifests"]
        left += [path.name for path in app.glob(".*.new")]
        return [*found, *([f"left over: {left}"] if left else [])]

    def _said(self) -> str:
        return (self.root / "said").read_text(errors="replace")[-800:]


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


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status


def warm_up() -> None:
    """Import what an update imports, once for all forks."""
    for name in ("cli.update", "pipeline.order", "store.rebuild", "config"):
        importlib.import_module(f"updaterd.{name}")


def points(calls: list[Point], *, step: int, modes=MODES) -> Iterator[Point]:
    """Yield every `step`-th combination of call and fault, spread evenly."""
    every = [Point(c.name, c.number, mode, c.call) for c in calls for mode in modes]
    # a stride that shares no factor with the modes, so that all of them occur
    while step > 1 and any(step % n == 0 for n in (2, 3, 5)):
        step += 1
    yield from every[::step]


def recovery_points(bench: Bench) -> Iterator[tuple[str, list[Point]]]:
    """Leave runs that died in the dangerous stretch; yield the calls of recovery."""
    for name, where in (("activating", 1), ("probation", 2), ("installed", 3)):
        calls = [c for c in bench.calls() if c.name == "symlink"]
        target = calls[min(where, len(calls)) - 1]
        bench.reset()
        bench.run("-o", "/dev/null", "-e", f"trace={target.name}", "-e",
                  Point(target.name, target.number, "kill").inject)  # fmt: skip
        bench.keep_as_before()
        yield name, bench.calls()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every point")
    parser.add_argument("--step", type=int, default=29, help="every N-th (default 29)")
    parser.add_argument("--only", help="NAME:NUMBER:MODE")
    parser.add_argument("--recovery", action="store_true", help="also its own kills")
    parser.add_argument(
        "--unhealthy", action="store_true", help="1.1.0 fails its health check"
    )
    parser.add_argument("--modes", default=",".join(MODES))
    arguments = parser.parse_args()
    warm_up()
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="killpoints-"))
    bench = Bench(root, healthy=not arguments.unhealthy)
    failures = count = 0
    try:
        if arguments.only:
            name, number, mode = arguments.only.split(":")
            chosen = [Point(name, int(number), mode)]
            total = 1
        else:
            calls = bench.calls()
            modes = tuple(arguments.modes.split(","))
            step = 1 if arguments.all else arguments.step
            chosen = list(points(calls, step=step, modes=modes))
            total = len(calls) * len(modes)
            print(f"{len(calls)} calls change files: {total} points", flush=True)
        for point in chosen:
            count += 1
            problems = bench.problems(point)
            if problems:
                failures += 1
                print(f"FAILED {point} {point.call}", *problems, sep="\n    ")
            if count % 50 == 0:
                print(f"{count} of {len(chosen)}, {failures} failed", flush=True)
        if arguments.recovery:
            for name, calls in recovery_points(bench):
                for call in calls[:: 1 if arguments.all else arguments.step]:
                    count += 1
                    point = Point(call.name, call.number, "kill", call.call)
                    problems = bench.problems(point)
                    if problems:
                        failures += 1
                        print(f"FAILED in recovery from {name}: {point} {point.call}",
                              *problems, sep="\n    ")  # fmt: skip
    finally:
        bench.close()
        shutil.rmtree(root, ignore_errors=True)
    took = time.monotonic() - began
    print(f"{count} of {total} points tried, {failures} failures, {took:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
