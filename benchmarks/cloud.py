# SPDX-License-Identifier: Apache-2.0
"""Releases pushed to a bucket, and machines that fetch them: bytes, CPU, requests.

    pip download --no-deps -d wheels PACKAGE==VERSION ...    # one wheel a release
    python benchmarks/cloud.py wheels/*.whl

Each wheel's tree is pushed to an empty bucket of a local S3 server (moto's), with
deltas from the last five. One machine updates after each push; another that got the
first release was away for all others. Counted at a gate in front of the server; CPU is
that of the commands and of what they started, without the server.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.cloud import Cloud, Gate
from fakes.machine import Machine


class Count:
    """What a command took."""

    def __init__(self, gate: Gate):
        self.gate = gate
        self.cpu_s = 0.0
        self.requests = self.up = self.down = 0

    def __call__(self, work) -> None:
        self.gate.clear()
        before = _cpu_s()
        work()
        self.cpu_s += _cpu_s() - before
        self.requests += len(self.gate.requests)
        self.up += self.gate.received
        self.down += self.gate.sent

    def row(self, name: str) -> str:
        return (
            f"| {name} | {self.up / 2**20:.2f} | {self.down / 2**20:.2f} | "
            f"{self.requests} | {self.cpu_s:.1f} |"
        )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(*words: object) -> None:
    """Run a command as a child of this process, whose CPU is counted at its end.

    Raises:
        CalledProcessError: it failed.
    """
    argv = [sys.executable, "-m", "updaterd", *map(str, words)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def update(machine: Machine) -> None:
    run("update", "acme", *machine.options)


def version_of(wheel: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", wheel.name.split("-")[1]))


def machine(root: Path, gate: Gate, bootstrap: Path) -> Machine:
    return Machine(
        root,
        feed=f"{gate.url}/v1/events",
        repository=f"{gate.url}/releases/repo",
        bootstrap=bootstrap,
        health=["/bin/true"],
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheels", nargs="+", type=Path)
    wheels = sorted(parser.parse_args().wheels, key=version_of)
    root = Path(tempfile.mkdtemp(prefix="cloud-"))
    cloud = Cloud()
    gate = Gate(cloud.port)
    try:
        measure(wheels, root, cloud, gate)
    finally:
        gate.close()
        cloud.close()
        shutil.rmtree(root)
    return 0


def measure(wheels: list[Path], root: Path, cloud: Cloud, gate: Gate) -> None:
    cloud.make("releases")
    os.environ.update(cloud.environment(gate.url))
    ops = root / "ops"
    to = ["--repo", ops, "--to", "s3://releases/repo"]
    run("release", "init", ops, "--profile", "demo", "--product", "acme")
    bootstrap = ops / "public/metadata/1.root.json"
    pushes, walker, first, away = (Count(gate) for _ in range(4))
    walking = machine(root / "walking", gate, bootstrap)
    absent = machine(root / "absent", gate, bootstrap)
    unpacked = 0
    words = ["--product", "acme", "--channel", "stable", "--version"]
    for number, wheel in enumerate(wheels):
        tree = root / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree)
        unpacked = sum(path.stat().st_size for path in tree.rglob("*"))
        version = wheel.name.split("-")[1]
        pushes(
            lambda tree=tree, v=version: run("release", "push", tree, *words, v, *to)
        )
        if number == 0:
            first(lambda: update(absent))
            update(walking)
        else:
            walker(lambda: update(walking))
        print(f"{version} pushed", file=sys.stderr, flush=True)
    away(lambda: update(absent))
    assert walking.running == absent.running == version_label(wheels[-1])
    print(f"{len(wheels)} releases of {unpacked / 2**20:.1f} MiB:\n")
    print("| | MiB up | MiB down | requests | CPU s |\n|---|---|---|---|---|")
    print(pushes.row(f"{len(wheels)} pushes"))
    print(first.row("a machine's first installation"))
    print(walker.row(f"a machine that takes each of {len(wheels) - 1} updates"))
    print(away.row(f"a machine that was away for {len(wheels) - 1}"))


def version_label(wheel: Path) -> str:
    return wheel.name.split("-")[1]


if __name__ == "__main__":
    sys.exit(main())
