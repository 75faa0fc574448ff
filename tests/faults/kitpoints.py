# SPDX-License-Identifier: Apache-2.0
"""Kill a kit's installer before every system call that changes a file, run it again.

    python tests/faults/kitpoints.py            every point, installing and removing
    python tests/faults/kitpoints.py --step 9   every ninth

What a person has after the second run must be what an undisturbed one makes. A program
stands for updaterd; what that does when it is killed is killpoints.py's (--of remove).
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

if __name__ == "__main__":  # as a command; pytest has its own pythonpath
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.kits import home_in, install, publisher

from updaterd.release.kits import description, making

CALLS = (
    "write", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "rmdir",
    "symlink", "symlinkat", "fchmod", "chmod", "openat",
)  # fmt: skip
_CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)")


class Person:
    """Somebody with a kit that carries all it needs."""

    def __init__(self, folder: Path):
        self.folder = folder
        kit = description.describe(publisher(folder) / "kit.toml", "acme", b"{}")
        carried = {"metadata/timestamp.json": b"{}"}
        made = making.write(
            kit, folder / "kits", forms=("sh",), carried=carried,
            platform="linux-x86_64",
        )  # fmt: skip
        self.script = made[0]
        self.home = home_in(folder)
        self.run("--user")
        self.wanted = {"install": self.state(), "remove": {}}

    def run(self, *words, around=()):
        return install(self.script, self.home, *words, around=around)

    def state(self) -> dict[str, bytes]:
        """What is in the home, but what the stand-in noted, and byte code."""
        return {
            str(path.relative_to(self.home)): os.fsencode(os.readlink(path))
            if path.is_symlink()
            else path.read_bytes()
            for path in self.home.rglob("*")
            if (path.is_symlink() or path.is_file())
            and path.name != "asked"
            and path.suffix != ".pyc"
        }

    def reset(self, verb: str) -> None:
        for path in self.home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if verb == "remove":
            self.run("--user")

    def words(self, verb: str) -> tuple[str, ...]:
        return ("--user", "--remove") if verb == "remove" else ("--user",)

    def calls(self, verb: str) -> list[tuple[str, int]]:
        """Return the calls that change something below the home, by their numbers."""
        self.reset(verb)
        log = self.folder / "trace"
        log.unlink(missing_ok=True)
        log.touch()
        log.chmod(0o666)
        only = f"trace={','.join('?' + name for name in CALLS)}"
        self.run(*self.words(verb), around=("strace", "-y", "-o", log, "-e", only))
        seen, found = Counter(), []
        for line in log.read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            if match is None:
                continue
            seen[match[1]] += 1
            reads = match[1] == "openat" and "O_CREAT" not in line
            if str(self.home) in line and not reads:
                found.append((match[1], seen[match[1]]))
        return found

    def problem(self, verb: str, point: tuple[str, int]) -> str:
        """Kill it there, run it again; return what is not as it should be."""
        self.reset(verb)
        name, number = point
        inject = f"inject={name}:signal=KILL:when={number}"
        words = self.words(verb)
        log = self.folder / "trace"
        around = ("strace", "-o", log, "-e", f"trace={name}", "-e", inject)
        first = self.run(*words, around=around)
        if first.returncode == 0:
            return "the kill did not come"
        second = self.run(*words)
        if second.returncode != 0:
            return f"the second run ended with {second.returncode}: {second.stderr}"
        state, wanted = self.state(), self.wanted[verb]
        differ = {k for k in state.keys() | wanted if state.get(k) != wanted.get(k)}
        return f"not as it should be: {sorted(differ)}" if differ else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1)
    step = parser.parse_args().step
    tried = failed = 0
    with tempfile.TemporaryDirectory(prefix="kitpoints-") as folder:
        os.chmod(folder, 0o755)
        person = Person(Path(folder))
        for verb in ("install", "remove"):
            points = person.calls(verb)
            print(f"{verb}: {len(points)} points", flush=True)
            for point in points[::step]:
                tried += 1
                if found := person.problem(verb, point):
                    failed += 1
                    print(f"{verb} {point[0]}:{point[1]}: {found}", flush=True)
    print(f"{tried} tried, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
