# SPDX-License-Identifier: Apache-2.0
"""What an update of a tree of very many files costs beside its delta.

    python benchmarks/large_tree.py [--files 100000] [--changed 1000] [--size 4000]
        [--unchanged hardlink] [--in FOLDER]

A release of many short files, and the next one with some of them changed. A machine
installs the first and updates to the second over loopback. Told of each: bytes that it
fetched, of manifests and of the rest; CPU seconds of the worker and of the processes
that open bundles; peak memory; bytes that they made the kernel write (`write_bytes` of
/proc/PID/io: pages that became dirty, directories and inodes of the file system
included); and where manifests are kept afterwards.
"""

import argparse
import collections
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakes.machine import Machine, cli
from fakes.origin import Origin
from fakes.site import Site

RUN = """
import json, resource, sys
from updaterd.__main__ import main
code = main()
who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
used = [resource.getrusage(one) for one in who]
io = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
print("COST" + json.dumps({
    "cpu": [one.ru_utime + one.ru_stime for one in used],
    "peak": [one.ru_maxrss // 1000 for one in used],
    "written": int(io["write_bytes"]),
}))
sys.exit(code)
"""


def fill(root: Path, files: int, size: int, changed: frozenset[int], edition: str):
    """Make a tree: most of each file is alike, so that it is packed soon."""
    common = random.Random(1).randbytes(size // 2).hex()[:size]
    for number in range(files):
        folder = root / f"lib{number // 1000:03}" / f"part{number // 100 % 10}"
        if number % 100 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        mark = edition if number in changed else "1.0.0"
        path = folder / f"module_{number:06}.py"
        path.write_text(f"{number} {mark}\n{common}")
        os.utime(path, (1_700_000_000, 1_700_000_000))


def measured(machine: Machine, origin: Origin) -> dict:
    """Update the machine once; return what it took.

    Raises:
        SystemExit: it failed.
    """
    origin.behave()
    words = ["update", "acme", *map(str, machine.options)]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    cost = done.stdout.rpartition("COST")[2]
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return {**json.loads(cost), "wall": time.monotonic() - began}


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())


def stored(machine: Machine) -> dict[str, int]:
    """Return where manifests are kept, and how many bytes each place takes."""
    state = machine.root / "state"
    return {
        "database": sum(size_of(path) for path in state.glob("state.db*")),
        "beside the releases": size_of(machine.app / ".updaterd" / "manifests"),
        "trust cache": size_of(state / "trust" / "manifests"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--changed", type=int, default=1000)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--unchanged", default="hardlink")
    parser.add_argument("--in", dest="within", type=Path, default=None)
    options = parser.parse_args()
    step = options.files // options.changed
    changed = frozenset(range(7, options.files, step))
    cli.as_typed = True  # for the CPU of a push
    with tempfile.TemporaryDirectory(dir=options.within) as folder:
        root = Path(folder)
        fill(root / "1.0.0", options.files, options.size, frozenset(), "1.0.0")
        fill(root / "1.1.0", options.files, options.size, changed, "1.1.0")
        site = Site(root / "site")
        with Origin(site.public) as origin:
            machine = Machine(
                root / "machine",
                feed=f"{origin.url}/v1/events",
                repository=origin.url,
                bootstrap=site.bootstrap,
                product_extra=f'unchanged = "{options.unchanged}"\n',
            )
            for version in ("1.0.0", "1.1.0"):
                began = resource.getrusage(resource.RUSAGE_CHILDREN)
                site.push(root / version, version, announce=False)
                ended = resource.getrusage(resource.RUSAGE_CHILDREN)
                pushed = ended.ru_utime + ended.ru_stime
                pushed -= began.ru_utime + began.ru_stime
                cost = measured(machine, origin)
                print(f"\n{version}: push {pushed:.1f} CPU s")
                for path, count in collections.Counter(origin.requests).items():
                    file = site.public / path.lstrip("/")
                    if file.is_file() and file.stat().st_size > 20_000:
                        size = file.stat().st_size
                        print(f"  {count} x {size:>12,}  {path[:80]}")
                print(f"  fetched {origin.sent:>12,}  in all")
                print(
                    f"  CPU {cost['cpu'][0]:.2f} s, {cost['cpu'][1]:.2f} s in openers,"
                    f" {cost['wall']:.1f} s; peak {cost['peak'][0]} and "
                    f"{cost['peak'][1]} MB; written {cost['written']:,} bytes"
                )
                for place, count in stored(machine).items():
                    print(f"  kept    {count:>12,}  {place}")
        print(f"\nchanged files: {options.changed * options.size:,} bytes")


if __name__ == "__main__":
    main()
