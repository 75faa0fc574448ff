# SPDX-License-Identifier: Apache-2.0
"""What a worker's CPU goes into: a look, a small update, a first install.

    python benchmarks/worker.py [--rounds 9] [--mib 0]

CPU seconds of the whole process, its interpreter and the process that opens bundles
included, by wait4: the least of several rounds, taken in turn. Beside them what a bare
interpreter takes, and `import httpx` and `import tuf.ngclient`. Then the same by part,
from one more run each with timers in it: what is nested counts for the inner part.

The release has three files, and of `--mib` MiB one more, of which ten bytes change. The
repository is served by this process, over loopback and without TLS.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakes.machine import Machine
from fakes.origin import Origin
from fakes.site import Site
from fakes.trees import make_tree

BESIDE = {
    "bare interpreter": "pass",
    "import httpx": "import httpx",
    "import tuf.ngclient": "import tuf.ngclient",
}
WORKER = "import sys; from updaterd.__main__ import main; sys.exit(main())"
PARTS = ("imports", "trust", "fetch", "apply", "stage", "commit", "activate", "other")
TIMED = """
import resource
def cpu():
    used = [resource.getrusage(who) for who in (0, -1)]
    return sum(one.ru_utime + one.ru_stime for one in used)
import builtins, importlib, json, os, sys
parts, open_, last = {"interpreter": cpu()}, ["other"], [cpu()]
def book():
    now = cpu()
    parts[open_[-1]] = parts.get(open_[-1], 0) + now - last[0]
    last[0] = now
def timed(home, name, part):
    real = getattr(home, name)
    def call(*given, **named):
        book(); open_.append(part)
        try:
            return real(*given, **named)
        finally:
            book(); open_.pop()
    setattr(home, name, call)
timed(builtins, "__import__", "imports")
timed(importlib, "import_module", "imports")
from updaterd.cli.parts.options import load_pipeline
load_pipeline()
from updaterd.artifact.worker import parent
from updaterd.install import stage
from updaterd.pipeline import trial, update
from updaterd.pipeline.tree import acquire
from updaterd.trust import client, view
for home, name, part in (
    (client.TrustClient, "refresh", "trust"), (view.View, "_find", "trust"),
    (view.View, "signed", "trust"), (view.View, "words", "trust"),
    (acquire, "fetch_blob", "fetch"), (parent, "run", "apply"),
    (update, "_stage", "stage"), (stage, "commit", "commit"),
    (trial, "perform", "activate")):
    timed(home, name, part)
from updaterd.__main__ import main
code = main()
book()
os.write(2, ("PARTS" + json.dumps(parts)).encode())
sys.exit(code)
"""


def spent(code: str, *words: str) -> tuple[float, int, str]:
    """Return CPU seconds and peak memory of an interpreter, and what it told.

    Raises:
        SystemExit: it failed.
    """
    listening, telling = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(telling, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(sys.executable, [sys.executable, "-I", "-c", code, *words])
    os.close(telling)
    with os.fdopen(listening, "rb") as file:
        text = file.read().decode()
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"exit code {os.waitstatus_to_exitcode(status)}\n{text}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss, text


class Scene:
    """A repository with two releases, and a machine that can be put back.

    Args:
        root: a folder for all of it.
        mib: of the long file.
    """

    def __init__(self, root: Path, mib: int):
        self.root = root
        self.site = Site(root / "site")
        self.long = bytearray(random.Random(1).randbytes(mib << 20))
        self.push("1.0.0")
        self.origin = Origin(self.site.public)
        self.origin.__enter__()
        self.machine = Machine(
            root / "machine",
            feed=f"{self.origin.url}/v1/events",
            repository=self.origin.url,
            bootstrap=self.site.bootstrap,
        )
        self.words = ["update", "acme", *map(str, self.machine.options)]
        self.keep("empty")
        spent(WORKER, *self.words)
        self.keep("first")
        middle = len(self.long) // 2
        self.long[middle : middle + 10] = b"0123456789"[: len(self.long)]
        self.push("1.1.0")

    def push(self, version: str):
        files = {
            "bin/app": f"#!/bin/sh\necho {version}\n" * 50,
            "lib/data": version.encode() + random.Random(2).randbytes(100_000),
            "version": version,
        }
        if self.long:
            files["lib/long"] = bytes(self.long)
        self.site.push(make_tree(self.root / version, files), version, announce=False)

    def keep(self, name: str):
        shutil.copytree(self.root / "machine", self.root / name, symlinks=True)

    def back_to(self, name: str):
        shutil.rmtree(self.root / "machine")
        shutil.copytree(self.root / name, self.root / "machine", symlinks=True)


def runs(scene: Scene):
    """Yield what is measured: its name, and what starts it."""
    for name, code in BESIDE.items():
        yield name, lambda _, code=code: spent(code)

    def install(code):
        scene.back_to("empty")
        return spent(code, *scene.words)

    def update(code):
        scene.back_to("first")
        return spent(code, *scene.words)

    yield "first install", install
    yield "small update", update
    yield "look", lambda code: spent(code, *scene.words)  # after the update


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mib", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), options.mib)
        least, peak = {}, {}
        for _ in range(options.rounds):
            for name, run in runs(scene):
                cpu, memory, _ = run(WORKER)
                least[name] = min(cpu, least.get(name, cpu))
                peak[name] = min(memory, peak.get(name, memory))
        print(f"{'':20} CPU s    MB")
        for name, cpu in least.items():
            print(f"{name:20} {cpu:5.3f} {peak[name] / 1000:5.1f}")
        print(f"\n{'':20}" + "".join(f"{part:>12}" for part in ("interpreter", *PARTS)))
        for name, run in runs(scene):
            if name not in BESIDE:
                parts = json.loads(run(TIMED)[2].rpartition("PARTS")[2])
                shown = (f"{parts.get(p, 0):12.3f}" for p in ("interpreter", *PARTS))
                print(f"{name:20}" + "".join(shown))


if __name__ == "__main__":
    main()
