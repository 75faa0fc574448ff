# SPDX-License-Identifier: Apache-2.0
"""Fail a real command at every system call that changes a file, recover, check.

    python tests/faults/killpoints.py                 a sample of updates, some minutes
    python tests/faults/killpoints.py --all           every point; prints the figure
    python tests/faults/killpoints.py --all --of unhealthy,first,rollback,repair,adopt
    python tests/faults/killpoints.py --all --of remove    a product taken away
    python tests/faults/killpoints.py --all --of hold,push,take,serve
    python tests/faults/killpoints.py --all --modes kill \
        --of push-to,sync-to,first-to,gc-at       a directory as a destination
    python tests/faults/killpoints.py --all --recovery      kills of the recovery
    python tests/faults/killpoints.py --only worker/pwrite64:17:kill      to look into

A process that has imported everything forks for each point, strace attaches to the
fork (which is the real interpreter, not a shim), and the fork runs `updaterd update`
as typed. A traced run says which calls there are, in the worker and in the process
that it gives bundles to (the opener); in the later ones a fault comes before one:

    kill        SIGKILL of everything that is at work
    alone       SIGKILL of the opener only: the worker has to cope
    ENOSPC, EIO, once or from there on (`+`)

Traps: with --seccomp-bpf strace ignores signal injection in silence; `when=N`
counts per thread, so with -f the N-th call of a name is that of whichever process
gets to N first, and the other's cannot be hit. Each process has a strace of its own
here; a run with -f tells how many calls there are in all, and none may be missing.
Where threads write (push, take, serve) that cannot be: there the fault comes to
whichever thread or process gets to its N-th call, for every N that one of them reached.

After each fault of an update, before anything is repaired: `current` must lead to a
tree that is one of the releases, byte for byte. Then, without faults: the next update
must end well at the newest good release, journal and disk must agree, nothing may be
left over, and a roll back and another update after that must work too. What must hold
for the others stands in tests/fakes/campaigns.py.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

if __name__ == "__main__":  # as a command; pytest has its own pythonpath
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.bench import Bench, until_traced
from fakes.campaigns import CAMPAIGNS
from fakes.deliveries import FOLDERS
from fakes.starter import import_everything

_NAMES = [
    "openat", "creat", "write", "pwrite64", "writev", "pwritev", "pwritev2",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat",
    "rmdir", "symlink", "symlinkat", "link", "linkat", "fsync", "fdatasync",
    "syncfs", "sync", "sync_file_range", "msync", "ftruncate", "truncate", "chmod",
    "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "fchownat", "utimensat",
    "setxattr", "fsetxattr", "mknodat", "copy_file_range", "sendfile", "splice",
    "fallocate", "ioctl",
]  # fmt: skip
# `?`: not every machine has the older ones
CHANGING = ",".join(f"?{name}" for name in _NAMES)
_TRACE = ("-y", "-s0", "-e", f"trace={CHANGING}")
_TRIES = 5  # a download comes in so many pieces today and in others tomorrow
EVERY = {**CAMPAIGNS, **FOLDERS}
MODES = ("kill", "ENOSPC", "ENOSPC+", "EIO", "EIO+")
# the number of the thread is there with -f only
_CALL = re.compile(r"^(?:(\d+)\s+)?(\w+)\((.*)")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of `name` in the worker or in the opener."""

    where: str
    name: str
    number: int
    mode: str
    call: str = ""

    def __str__(self) -> str:
        return f"{self.where}/{self.name}:{self.number}:{self.mode}"

    def options(self, log: Path) -> list[str]:
        """Return what strace is told."""
        when = f"when={self.number}" + ("+" if self.mode.endswith("+") else "")
        fault = (
            "signal=KILL"
            if self.mode in ("kill", "alone")
            else f"error={self.mode.removesuffix('+')}"
        )
        inject = f"inject={self.name}:{fault}:{when}"
        follow = ["-f"] if self.where == "all" else []
        # -A: the opener may be started more than once
        return [*follow, "-A", "-o", str(log), "-e", f"trace={self.name}", "-e", inject]

    def came(self, code: int, log: Path) -> bool:
        """Tell whether the fault came, from the run's end and what strace said."""
        if self.mode == "kill" and self.where != "all":
            return code == -signal.SIGKILL
        said = log.read_text(errors="replace") if log.exists() else ""
        return ("killed by" if self.mode in ("kill", "alone") else "(INJECTED)") in said


class Strace:
    """strace on the worker, on the opener, or on both, each on its own.

    Args:
        folder: for the opener's launcher.
        worker: options for the worker; none, and it is left alone.
        opener: options for the opener, likewise.
        together: what kills the opener kills the worker before it can notice.
    """

    def __init__(
        self, folder: Path, *, worker=(), opener=(), together: bool = False
    ) -> None:
        self._worker = list(worker)
        self._launcher = folder / "opener"
        self._opener = bool(opener)
        self._process: subprocess.Popen | None = None
        if not opener:
            return
        strace = shlex.join(["strace", "-f", "-q", *opener, sys.executable])
        # `exec`: the worker must see the signal that ends the opener. Or it must see
        # nothing: then the launcher still holds its pipe when it kills it.
        self._launcher.write_text(
            f'#!/bin/sh\n{strace} "$@"\n[ $? != 137 ] || kill -KILL $PPID\n'
            if together
            else f'#!/bin/sh\nexec {strace} "$@"\n'
        )
        self._launcher.chmod(0o755)

    def prepare(self) -> None:
        if self._opener:
            sys.executable = str(self._launcher)

    def attach(self, pid: int) -> None:
        if not self._worker:
            return
        self._process = subprocess.Popen(
            ["strace", "-q", "-p", str(pid), *self._worker],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if not until_traced(pid, lambda: self._process.poll() is not None):
            os.kill(pid, signal.SIGKILL)
            raise RuntimeError(self._process.stderr.read().decode())

    def detach(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process.stderr.close()


def strace_for(bench: Bench, point: Point) -> Strace:
    """Return what makes the fault of a point."""
    options = point.options(bench.root / "strace")
    if point.where in ("worker", "all"):
        return Strace(bench.root, worker=options)
    return Strace(bench.root, opener=options, together=point.mode == "kill")


def calls(bench: Bench) -> list[Point]:
    """Return the calls that change files, from a traced run, in their order.

    Raises:
        AssertionError: a call is made by a process that is not looked at.
    """
    if bench.follows:
        return _reached(bench)
    for _ in range(_TRIES):
        total, found = _follow_all(bench), _follow_each(bench)
        mine = Counter(point.name for point in found)
        if total == mine:
            return found
    raise AssertionError(f"not looked at: {total - mine}, too many: {mine - total}")


def _follow_all(bench: Bench) -> Counter[str]:
    """Count the calls with one strace that follows everything that is started."""
    trace = _trace_all(bench)
    return Counter(
        match[2]
        for line in trace.read_text(errors="replace").splitlines()
        if (match := _CALL.match(line)) and _changes(bench.root, match[2], match[3])
    )


def _trace_all(bench: Bench) -> Path:
    bench.reset()
    trace = bench.root / "trace-all"
    bench.run(tracer=Strace(bench.root, worker=["-f", *_TRACE, "-o", str(trace)]))
    return trace


def _reached(bench: Bench) -> list[Point]:
    """Return each number that a call got to in any thread, of those that change."""
    found: dict[tuple[str, int], Point] = {}
    for point in _numbered(bench, "all", _trace_all(bench)):
        found.setdefault((point.name, point.number), point)
    return list(found.values())


def _follow_each(bench: Bench) -> list[Point]:
    """Return the calls of each process, as its own strace counts them."""
    bench.reset()
    traces = {"worker": bench.root / "trace", "opener": bench.root / "trace-opener"}
    for trace in traces.values():
        trace.unlink(missing_ok=True)
    both = {where: [*_TRACE, "-o", str(trace)] for where, trace in traces.items()}
    bench.run(tracer=Strace(bench.root, **both))
    return [point for where in traces for point in _parse(bench, where, traces[where])]


def _parse(bench: Bench, where: str, trace: Path) -> Iterator[Point]:
    text = trace.read_text(errors="replace") if trace.exists() else ""
    calls = [found for line in text.splitlines() if (found := _CALL.match(line))]
    threads = {found[1] for found in calls}
    assert len(threads) <= 1, f"{where} has threads that change files: {threads}"
    yield from _numbered(bench, where, trace)


def _numbered(bench: Bench, where: str, trace: Path) -> Iterator[Point]:
    """Yield the calls of a trace that change files, counted for each thread."""
    seen: Counter[tuple[str, str]] = Counter()
    text = trace.read_text(errors="replace") if trace.exists() else ""
    for line in text.splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        thread, name, rest = found.groups()
        seen[thread, name] += 1
        if _changes(bench.root, name, rest):
            yield Point(where, name, seen[thread, name], "", rest[:120])


def _changes(root: Path, name: str, rest: str) -> bool:
    if name in ("openat", "creat"):
        # what Python makes once, and where the harness keeps what was said
        kept = "__pycache__" not in rest and f'"{root}/output"' not in rest
        return kept and ("O_CREAT" in rest or "O_TRUNC" in rest)
    if name == "ioctl":
        return "FICLONE" in rest
    if name in ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile"):
        return f"<{root}" in rest
    return True


def problems(bench: Bench, point: Point) -> list[str]:
    """Return what is wrong after the fault and after recovery."""
    log = bench.root / "strace"
    for _ in range(_TRIES):
        bench.reset()
        log.unlink(missing_ok=True)
        code = bench.run(tracer=strace_for(bench, point))
        if point.came(code, log):
            return bench.broken_tree() or bench.settle(code)
    return [f"the fault did not come; the run ended with {code}: {bench.output()}"]


def points(found: list[Point], *, step: int = 1, modes=MODES) -> list[Point]:
    """Return every `step`-th combination of call and fault, spread evenly."""
    every = [
        Point(call.where, call.name, call.number, mode, call.call)
        for call in found
        for mode in (*modes, *(("alone",) if call.where == "opener" else ()))
    ]
    # a stride that shares no factor with the number of modes, so that all occur
    while step > 1 and any(step % n == 0 for n in (2, 3, 5)):
        step += 1
    return every[::step]


def dead_runs(bench: Bench) -> dict[str, Point]:
    """Return, for each state of a deployment, a kill that leaves it open there.

    The last one of each: most of the state's work is done then.
    """
    kills = [p for p in points(calls(bench), modes=("kill",)) if p.where == "worker"]
    kills = kills[::3]
    states: dict[int, str] = {}

    def state(at: int) -> str:
        if at not in states:
            bench.reset()
            bench.run(tracer=strace_for(bench, kills[at]))
            states[at] = bench.state()
        return states[at]

    marks = sorted({*range(0, len(kills), 4), len(kills) - 1})
    for low, high in pairwise(marks):
        if state(low) != state(high):  # all between: a state can be short
            for at in range(low + 1, high):
                state(at)
    found = {states[at]: kills[at] for at in sorted(states)}
    found.pop("", None)
    return found


def recovery_points(bench: Bench, *, modes: tuple[str, ...]) -> Iterator:
    """Leave runs that died in each state; yield the points of their recovery."""
    pristine = bench.root / "pristine"
    shutil.copytree(bench.root / "before", pristine, symlinks=True)
    for state, point in dead_runs(bench).items():
        shutil.rmtree(bench.root / "before")
        shutil.copytree(pristine, bench.root / "before", symlinks=True)
        bench.reset()
        bench.run(tracer=strace_for(bench, point))
        bench.keep_as_before()
        yield state, points(calls(bench), modes=modes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="every point")
    parser.add_argument("--step", type=int, default=29, help="every N-th (default 29)")
    parser.add_argument("--part", default="1/1", help="I/N: for N runs side by side")
    parser.add_argument("--only", help="WHERE/NAME:NUMBER:MODE")
    parser.add_argument("--where", choices=("worker", "opener"), help="only there")
    parser.add_argument("--recovery", action="store_true", help="kills of recovery")
    parser.add_argument(
        "--of", default="update", help=f"one or more of {','.join(EVERY)}"
    )
    parser.add_argument("--modes", default=",".join(MODES))
    arguments = parser.parse_args()
    import_everything()
    failures = 0
    for name in arguments.of.split(","):
        failures += campaign(name, arguments)
    return 1 if failures else 0


def campaign(name: str, arguments: argparse.Namespace) -> int:
    """Try the points of one command; return how many failed."""
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="killpoints-"))
    modes = tuple(arguments.modes.split(","))
    part, parts = map(int, arguments.part.split("/"))
    bench = EVERY[name](root / "bench")
    failures = count = total = 0
    try:
        if arguments.only:
            where, _, rest = arguments.only.partition("/")
            name, number, mode = rest.split(":")
            groups = iter([("", [Point(where, name, int(number), mode)])])
        elif arguments.recovery:
            kinds = modes if arguments.modes != ",".join(MODES) else ("kill",)
            groups = recovery_points(bench, modes=kinds)
        else:
            groups = iter([("", points(calls(bench), modes=modes))])
        for state, found_there in groups:
            every = [p for p in found_there if arguments.where in (None, p.where)]
            total += len(every)
            said = f"recovery from {state}: " if state else ""
            print(f"{name}: {said}{len(every)} points", flush=True)
            stride = 1 if arguments.all or arguments.only else arguments.step
            for point in every[::stride][part - 1 :: parts]:
                count += 1
                if found := problems(bench, point):
                    failures += 1
                    print(f"FAILED {said}{point} {point.call}", *found, sep="\n    ",
                          flush=True)  # fmt: skip
                if count % 50 == 0:
                    print(f"{count} tried, {failures} failed", flush=True)
    finally:
        bench.close()
        shutil.rmtree(root, ignore_errors=True)
    took = time.monotonic() - began
    print(
        f"{name}: {count} of {total} points tried, {failures} failures, {took:.0f} s",
        flush=True,
    )
    return failures


if __name__ == "__main__":
    sys.exit(main())
