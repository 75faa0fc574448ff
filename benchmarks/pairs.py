# SPDX-License-Identifier: Apache-2.0
"""Releases of real applications: fetched, and every method measured on each pair.

    benchmarks/pairs.py fetch FOLDER [--set corpus] [--only NAME ...]
    benchmarks/pairs.py measure FOLDER [--set corpus] [--only NAME ...] [-- DELTA ARGS]
    benchmarks/pairs.py table FOLDER [--set corpus]

`fetch` takes the pairs of pairs.tsv through pip, npm and apt, as they are set up here,
and lays each out below FOLDER/trees as an installation would. `measure` runs delta.py
on each, and keeps what it prints in FOLDER/results; what is there is not measured
again. `table` sums them up: bytes of updaterd and of the best peer, and the geometric
mean of how they compare.
"""

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (34, 28, 27, 17, 12)]
PEERS = ("bsdiff4 tar", "HDiffPatch lzma2", "zstd-19 patch-from", "xdelta3", "tufup")


@dataclass(frozen=True)
class Pair:
    """A line of pairs.tsv."""

    group: str
    kind: str
    client: str
    package: str
    old: str
    new: str

    @property
    def name(self) -> str:
        return self.package.lstrip("@").replace("/", "+")

    def tree(self, base: Path, version: str) -> Path:
        return base / "trees" / f"{self.name}-{version.replace(':', '+')}"


def pip(pair: Pair, version: str, work: Path, out: Path) -> None:
    """Lay out a wheel without the version in its own folders' names."""
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    argv += ["--only-binary=:all:", "--python-version=311"]
    argv += [f"--platform={name}" for name in PLATFORMS]
    subprocess.run([*argv, "-d", work, f"{pair.package}=={version}"], check=True)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out)
    for path in out.glob("*.data/*"):
        shutil.copytree(
            path, out / ("bin" if path.name == "scripts" else ""), dirs_exist_ok=True
        )
    for path in out.glob("*.data"):
        shutil.rmtree(path)
    for path in out.glob("*.dist-info"):
        path.rename(out / "meta.dist-info")
    for path in out.rglob("bin/*"):
        if path.is_file():
            path.chmod(0o755)


def npm(pair: Pair, version: str, work: Path, out: Path) -> None:
    argv = ["npm", "pack", "--silent", f"{pair.package}@{version}"]
    subprocess.run(argv, cwd=work, check=True, stdout=subprocess.DEVNULL)
    (archive,) = work.glob("*.tgz")
    subprocess.run(["tar", "-xzf", archive, "-C", out, "--strip=1"], check=True)


def apt(pair: Pair, version: str, work: Path, out: Path) -> None:
    argv = ["apt-get", "download", "-q", f"{pair.package}={version}"]
    subprocess.run(argv, cwd=work, check=True, stdout=subprocess.DEVNULL)
    (package,) = work.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, out], check=True)
    for path in out.rglob("*"):  # what leads out of the tree is no part of a release
        if path.is_symlink() and path.readlink().is_absolute():
            path.unlink()


CLIENTS = {"pip": pip, "npm": npm, "apt": apt}


def fetch(pair: Pair, version: str, base: Path) -> None:
    out = pair.tree(base, version)
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as folder:
        work, tree = Path(folder) / "download", Path(folder) / "tree"
        work.mkdir()
        tree.mkdir()
        CLIENTS[pair.client](pair, version, work, tree)
        tree.rename(out)


def measure(pair: Pair, base: Path, more: list[str]) -> None:
    out = base / "results" / f"{pair.name}.md"
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    delta = str(Path(__file__).with_name("delta.py"))
    trees = [str(pair.tree(base, version)) for version in (pair.old, pair.new)]
    part = out.with_suffix(".part")
    with part.open("w") as file:
        argv = [sys.executable, delta, *trees, *more]
        subprocess.run(argv, cwd=base, check=True, stdout=file)
    part.rename(out)


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of delta.py's table, by method."""
    table = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[1][:1].isdigit():
            table[cells[0]] = cells[1:]
    return table


def table(pairs: Iterator[Pair], base: Path) -> None:
    print("| pair | kind | updaterd | best peer | | ratio | apply CPU s | floor | MB |")
    print("|---|---|---:|---:|---|---:|---:|---:|---:|")
    ratios = []
    for pair in pairs:
        path = base / "results" / f"{pair.name}.md"
        if not path.exists():
            continue
        text = path.read_text()
        methods = rows(text)
        size = {name: int(cells[0].replace(",", "")) for name, cells in methods.items()}
        best = min(set(PEERS) & set(size), key=lambda name: size[name])
        ratio = size["updaterd"] / size[best]
        ratios.append(ratio)
        own = methods["updaterd"]
        floor = next(x for x in text.splitlines() if x.startswith("| floor"))
        least = floor.split("|")[5].strip()
        print(
            f"| {pair.package} {pair.old} -> {pair.new} | {pair.kind} "
            f"| {own[0]} | {size[best]:,} | {best} | {ratio:.3f} "
            f"| {own[3]} | {least} | {own[4]} |"
        )
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"\ngeometric mean of {len(ratios)}: {mean:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=("fetch", "measure", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", dest="group", choices=("corpus", "unseen"))
    parser.add_argument("--only", action="append")
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:at])
    lines = Path(__file__).with_suffix(".tsv").read_text().splitlines()
    pairs = [Pair(*x.split("\t")) for x in lines if x and not x.startswith("#")]
    base = options.folder.resolve()
    chosen = [
        pair
        for pair in pairs
        if options.group in {None, pair.group}
        and (not options.only or {pair.name, pair.package} & set(options.only))
    ]
    if options.step == "table":
        table(iter(chosen), base)
        return 0
    for pair in chosen:
        for version in (pair.old, pair.new):
            if options.step == "fetch":
                fetch(pair, version, base)
        if options.step == "measure":
            measure(pair, base, arguments[at + 1 :])
    return 0


if __name__ == "__main__":
    sys.exit(main())
