# SPDX-License-Identifier: Apache-2.0
"""Deltas against the known methods: bytes, CPU and peak memory, in one run.

    benchmarks/delta.py OLD_TREE NEW_TREE [--only NAME ...] [--tufup PYTHON]
    benchmarks/delta.py --sizes [--mib 1024] [--files 10000] [--only NAME ...]

Every method runs in a process of its own, measured by wait4. Memory to create is what
all its processes have together, sampled about every 50 ms (PSS: a shared page counts
once), or the peak of the largest one by wait4, whichever is more. `floor` is what no
updater can do without: link what did not change, read the old, write the new and
hash it. The floor and updaterd's worker are spawned as they are, with the start of
their Python; from the others, the start of this harness is taken off. Peers that are
not installed are left out and named. `--tufup` is the interpreter of an environment
that has tufup (it pins an old bsdiff4). `--sizes` makes its own trees: many small files
of which three in ten changed, and one long file with changes all over; unless others
are named, only the floor and updaterd are measured on them.
"""

import argparse
import filecmp
import lzma
import marshal
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

ENOUGH = 8
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def tar(tree: Path, out: Path) -> Path:
    """Make a reproducible tar, sorted, without owners and times."""

    def plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
        item.uid = item.gid = item.mtime = 0
        item.uname = item.gname = ""
        return item

    with tarfile.open(out, "w") as archive:
        for path in sorted(tree.rglob("*")):
            archive.add(
                path, str(path.relative_to(tree)), recursive=False, filter=plain
            )
    return out


def untar(archive: Path, out: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(out, filter="tar")


class Updaterd:
    """This project, through its public functions."""

    APPLY = (
        "import sys; sys.path[:] = sys.argv.pop().split(chr(10));"
        "from updaterd.artifact.worker import child, parent;"
        "parent.run(child.read(sys.stdin.buffer.read()))"
    )

    def create(self, work: Path, old: Path, new: Path) -> int:
        import pickle

        from updaterd.release import tree
        from updaterd.release.bundles import delta as delta_bundle
        from updaterd.release.deltas import is_offered

        before, after = tree.scan(old), tree.scan(new)
        trees = old, before, new, after
        names = {"from_version": "1", "to_version": "2"}
        delta = delta_bundle.build_delta(*trees, work / "updaterd", **names)
        # As `push` does: all are made, and machines take the smallest one.
        for make in (
            delta_bundle.build_arm,
            delta_bundle.build_inflated,
            delta_bundle.build_primed,
        ):
            other = make(*trees, work / "other", **names)
            if other is not None and is_offered(other, beside=delta.length):
                delta = other
                (work / "other").replace(work / "updaterd")
        (work / "updaterd.job").write_bytes(pickle.dumps((delta, before, after)))
        return delta.length

    def direct(self, work: Path) -> tuple[list[str], Path, dict[str, str]]:
        """Return what applies a delta as the pipeline does: argv, stdin, environment.

        The process that opens the bundle, and the one that hashes what it made. In an
        update the latter is the worker, whose start is paid for already; here it is in.
        """
        from updaterd.artifact.worker import parent

        argv = parent.command()
        argv[argv.index("-c") + 1] = self.APPLY
        return argv, work / "updaterd.stdin", parent.ENVIRONMENT

    def prepare(self, work: Path, old: Path, new: Path) -> None:
        import compileall
        import pickle

        import updaterd
        from updaterd.artifact.worker import parent

        # As an installation does. In a checkout, what the worker imports after it gave
        # up its rights would be compiled every time.
        compileall.compile_dir(Path(updaterd.__file__).parent, quiet=1)
        delta, before, after = pickle.loads((work / "updaterd.job").read_bytes())
        job = parent.Job(
            kind="delta",
            codec=delta.codec,
            bundle=work / "updaterd",
            bundle_sha256=delta.sha256,
            bundle_length=delta.length,
            destination=work / "out",
            files=after,
            tree=delta.to_tree,
            old=old,
            old_files=before,
            unchanged="hardlink",  # as the floor does
        )
        (work / "updaterd.stdin").write_bytes(parent.plain(job))


class Decoding:
    """Only the decompressors of the worker: what its bundle's streams cost."""

    def create(self, work: Path, old: Path, new: Path) -> int:
        return 0

    def apply(self, work: Path, old: Path, new: Path) -> None:
        from updaterd.artifact import codecs, container

        path = work / "updaterd"
        fd = os.open(path, os.O_RDONLY)
        for stream in container.read(fd, container.DELTA, length=path.stat().st_size):
            codecs.Stream(fd, stream, "stream").skip(stream.raw)


class Bsdiff:
    """bsdiff4 on the whole tar, as tufup does it."""

    def create(self, work: Path, old: Path, new: Path) -> int:
        import bsdiff4

        a, b = tar(old, work / "a.tar"), tar(new, work / "b.tar")
        bsdiff4.file_diff(a, b, work / "bsdiff4")
        return (work / "bsdiff4").stat().st_size

    def apply(self, work: Path, old: Path, new: Path) -> None:
        import bsdiff4

        bsdiff4.file_patch(work / "a.tar", work / "c.tar", work / "bsdiff4")
        untar(work / "c.tar", work / "out")


class HDiff:
    """HDiffPatch with lzma2, on the whole tar."""

    def create(self, work: Path, old: Path, new: Path) -> int:
        import hdiffpatch

        a, b = tar(old, work / "a.tar"), tar(new, work / "b.tar")
        diff = hdiffpatch.diff(
            a.read_bytes(), b.read_bytes(), compression="lzma2", validate=False
        )
        return (work / "hdiff").write_bytes(diff)

    def apply(self, work: Path, old: Path, new: Path) -> None:
        import hdiffpatch

        old_tar, diff = (work / "a.tar").read_bytes(), (work / "hdiff").read_bytes()
        (work / "c.tar").write_bytes(hdiffpatch.apply(old_tar, diff))
        untar(work / "c.tar", work / "out")


class Command:
    """A program: zstd --patch-from, xdelta3."""

    foreign = True  # the harness that starts it is no part of it

    def __init__(self, make: str, use: str) -> None:
        self.make, self.use = make, use

    def create(self, work: Path, old: Path, new: Path) -> int:
        tar(old, work / "a.tar")
        tar(new, work / "b.tar")
        subprocess.run(["sh", "-c", self.make], cwd=work, check=True)
        return (work / "patch").stat().st_size

    def apply(self, work: Path, old: Path, new: Path) -> None:
        subprocess.run(["sh", "-c", self.use], cwd=work, check=True)
        untar(work / "c.tar", work / "out")


class Full:
    """No delta at all: tar.xz."""

    def create(self, work: Path, old: Path, new: Path) -> int:
        data = tar(new, work / "b.tar").read_bytes()
        return (work / "full.xz").write_bytes(lzma.compress(data, preset=9))

    def apply(self, work: Path, old: Path, new: Path) -> None:
        with lzma.open(work / "full.xz") as data, (work / "c.tar").open("wb") as out:
            shutil.copyfileobj(data, out, 1 << 18)
        untar(work / "c.tar", work / "out")


class Tufup:
    """tufup's own Patcher, in its own environment."""

    foreign = True

    CREATE = (
        "import sys, pathlib; from tufup.common import Patcher;"
        "w = pathlib.Path(sys.argv[1]);"
        "Patcher.diff_and_hash(w/'a.tar.gz', w/'b.tar.gz', w/'tufup.patch')"
    )
    APPLY = (
        "import sys, pathlib, json, shutil; from tufup.common import Patcher;"
        "w = pathlib.Path(sys.argv[1]);"
        "M = type('M', (), {'name': 'p',"
        " 'custom_internal': json.loads((w/'t.json').read_text())});"
        "Patcher.patch_and_verify(w/'a.tar.gz', w/'c.tar.gz', {M(): w/'tufup.patch'});"
        "shutil.unpack_archive(w/'c.tar.gz', w/'out')"
    )

    def __init__(self, python: str) -> None:
        self.python = python

    def create(self, work: Path, old: Path, new: Path) -> int:
        for name, tree in (("a", old), ("b", new)):
            tar(tree, work / f"{name}.tar")
            subprocess.run(["gzip", "-kf", work / f"{name}.tar"], check=True)
        code = self.CREATE.replace("Patcher.diff", "r = Patcher.diff") + (
            "; import json; (w/'t.json').write_text(json.dumps(r))"
        )
        subprocess.run([self.python, "-c", code, work], check=True)
        return (work / "tufup.patch").stat().st_size

    def apply(self, work: Path, old: Path, new: Path) -> None:
        subprocess.run([self.python, "-c", self.APPLY, work], check=True)


class Floor:
    """Link the unchanged, read the old, write and sha256 the new; nothing else."""

    PROGRAM = """
import os, sys, marshal
from hashlib import sha256
old, new, out, folders, files = marshal.load(sys.stdin.buffer)
for folder in folders:
    os.mkdir(f"{out}/{folder}")
buffer = bytearray(1 << 18)
view = memoryview(buffer)
for path, kind in files:
    there = f"{out}/{path}"
    if kind == "link":
        os.symlink(os.readlink(f"{new}/{path}"), there)
    elif kind == "same":
        os.link(f"{old}/{path}", there)
    else:
        if kind == "changed":
            fd = os.open(f"{old}/{path}", os.O_RDONLY)
            while os.readv(fd, [buffer]):
                pass
            os.close(fd)
        state = sha256()
        a = os.open(f"{new}/{path}", os.O_RDONLY)
        b = os.open(there, os.O_WRONLY | os.O_CREAT, 0o644)
        while count := os.readv(a, [buffer]):
            state.update(view[:count])
            os.write(b, view[:count])
        os.close(a)
        os.close(b)
os._exit(0)
"""

    def create(self, work: Path, old: Path, new: Path) -> int:
        return 0

    def prepare(self, work: Path, old: Path, new: Path) -> None:
        folders, files = [], []
        for path in sorted(new.rglob("*")):
            name = str(path.relative_to(new))
            before = old / name
            if path.is_symlink():
                files.append((name, "link"))
            elif path.is_dir():
                folders.append(name)
            elif not before.is_file():
                files.append((name, "new"))
            else:
                same = filecmp.cmp(before, path, shallow=False)
                files.append((name, "same" if same else "changed"))
        plan = str(old), str(new), str(work / "out"), folders, files
        (work / "floor.stdin").write_bytes(marshal.dumps(plan))

    def direct(self, work: Path) -> tuple[list[str], Path, dict[str, str]]:
        argv = [sys.executable, "-I", "-S", "-c", self.PROGRAM]
        return argv, work / "floor.stdin", {"LC_ALL": "C.UTF-8"}


def methods(tufup: str | None) -> dict[str, object]:
    available: dict[str, object] = {
        "floor": Floor(),
        "updaterd": Updaterd(),
        "its decoding alone": Decoding(),
        "bsdiff4 tar": Bsdiff(),
        "full tar.xz": Full(),
    }
    try:
        import hdiffpatch  # noqa: F401 # only whether it is there

        available["HDiffPatch lzma2"] = HDiff()
    except ImportError:
        print("hdiffpatch is not installed: left out", file=sys.stderr)
    if shutil.which("zstd"):
        available["zstd-19 patch-from"] = Command(
            "zstd -q -f -19 --ultra --long=27 --patch-from=a.tar b.tar -o patch",
            "zstd -q -f -d --long=27 --memory=1024MB --patch-from=a.tar patch -o c.tar",
        )
    if shutil.which("xdelta3"):
        available["xdelta3"] = Command(
            "xdelta3 -q -f -9 -S lzma -B 1073741824 -e -s a.tar b.tar patch",
            "xdelta3 -q -f -B 1073741824 -d -s a.tar patch c.tar",
        )
    if tufup:
        available["tufup"] = Tufup(tufup)
    return available


def measure(args: list[str]) -> tuple[float, float, str]:
    """Run a step in a child; return CPU seconds, peak MB and what it printed."""
    return spawn([sys.executable, __file__, *args], Path("/dev/null"), dict(os.environ))


class Together:
    """Samples what a process and its descendants take at one time."""

    def __init__(self, pid: int, *, itself: bool) -> None:
        self._pid, self._itself = pid, itself
        self._over = threading.Event()
        self._peak = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> float:
        """Return the peak, in MB; before the process is waited for."""
        self._over.set()
        self._thread.join()
        return self._peak / 1024

    def _run(self) -> None:
        pause = 0.05
        while not self._over.wait(pause):
            started = time.thread_time()
            pids = self._below(self._pid) + [self._pid] * self._itself
            self._peak = max(self._peak, sum(map(self._kib, pids)))
            # Counting the pages of a large process takes a while, and a core.
            pause = max(0.05, 20 * (time.thread_time() - started))

    def _below(self, pid: int) -> list[int]:
        pids = []
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                pids += [int(number) for number in text.split()]
        except OSError:
            return []  # it just ended
        return pids + [more for child in pids for more in self._below(child)]

    def _kib(self, pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return next((int(x.split()[1]) for x in lines if x.startswith("Pss:")), 0)


def spawn(
    argv: list[str], stdin: Path, environ: dict[str, str], together: str = ""
) -> tuple[float, float, str]:
    read, write = os.pipe()
    pid = os.posix_spawn(
        argv[0],
        argv,
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, str(stdin), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, write, 1),
        ],
    )
    os.close(write)
    watch = Together(pid, itself=together == "all") if together else None
    with os.fdopen(read) as pipe:
        text = pipe.read()
    peak = watch.finish() if watch else 0
    _, status, usage = os.wait4(pid, 0)
    if status:
        return -1, -1, ""
    return (
        usage.ru_utime + usage.ru_stime,
        max(peak, usage.ru_maxrss / 1024),
        text,
    )


def small(old: Path, new: Path, count: int) -> None:
    """Make trees of `count` short text files, of which three in ten changed."""
    for root in (old, new):
        for number in range(count):
            path = root / f"d{number % 100}" / f"f{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw = random.Random(number)
            text = "".join(f"line {draw.randrange(10**6)} {n}\n" for n in range(40))
            if root == new and number % 10 < 3:
                text = text.replace("line", "row", 1) + "more\n"
            path.write_text(text)


def long(old: Path, new: Path, mib: int) -> None:
    """Make trees of one random file: 20 bytes a MiB change, here and there 100 more."""
    draw = random.Random(1)
    old.mkdir()
    new.mkdir()
    with (old / "x").open("wb") as before, (new / "x").open("wb") as after:
        for number in range(mib):
            block = bytearray(draw.randbytes(1 << 20))
            before.write(block)
            for _ in range(20):
                block[draw.randrange(1 << 20)] ^= 5
            if number % 10 == 3:
                block[1000:1000] = draw.randbytes(100)
            after.write(block)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path, nargs="?")
    parser.add_argument("new", type=Path, nargs="?")
    parser.add_argument("--only", action="append")
    parser.add_argument("--tufup")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sizes:
        for title, make, count in (
            (f"{options.files:,} small files", small, options.files),
            (f"one file of {options.mib:,} MiB", long, options.mib),
        ):
            if not count:
                continue
            print(f"### {title}\n", flush=True)
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                old, new = Path(folder) / "old", Path(folder) / "new"
                # In a process of its own: see table.
                code = "import sys; sys.path.insert(0, sys.argv[1]); import delta;"
                code += "from pathlib import Path; make, *trees, count = sys.argv[2:];"
                code += "getattr(delta, make)(*map(Path, trees), int(count))"
                own_folder = str(Path(__file__).parent)
                argv = [sys.executable, "-c", code, own_folder, make.__name__, old, new]
                subprocess.run([*argv, str(count)], check=True)
                os.sync()  # or the first to write waits for what was made here
                only = options.only or ["floor", "updaterd"]
                table(old, new, only=only, tufup=None, runs=3)
            print()
        return 0
    if options.old is None or options.new is None:
        parser.error("two trees, or --sizes")
    old, new = options.old.resolve(), options.new.resolve()
    if options.step == "nothing":
        methods(options.tufup)
    elif options.step:
        method = methods(options.tufup)[options.name]
        if options.step == "create":
            print(method.create(options.work, old, new))
        elif options.step == "prepare":
            method.prepare(options.work, old, new)
        else:
            method.apply(options.work, old, new)
    else:
        table(old, new, only=options.only, tufup=options.tufup, runs=5)
    return 0


def table(
    old: Path, new: Path, *, only: list[str] | None, tufup: str | None, runs: int
) -> None:
    """Measure and print; of so many times that each is applied, the best.

    What has taken ENOUGH seconds of CPU by then is not applied again.
    """
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        work = Path(folder)
        # Every step is a child, and starts with its parent's peak: this process has
        # to stay small.
        more = ["--tufup", tufup] if tufup else []
        nothing = [str(old), str(new), "--step", "nothing", "--work", folder, *more]
        own = min(measure(nothing)[0] for _ in range(5))
        print("| method | bytes | create CPU s | MB | apply CPU s | MB |")
        print("|---|---:|---:|---:|---:|---:|", flush=True)
        for name, method in methods(tufup).items():
            if only and name not in only:
                continue
            base = [str(old), str(new), "--name", name, "--work", folder, *more]
            cpu, memory, text = spawn(
                [sys.executable, __file__, *base, "--step", "create"],
                Path("/dev/null"),
                dict(os.environ),
                "below" if hasattr(method, "foreign") else "all",
            )
            if hasattr(method, "prepare"):
                measure([*base, "--step", "prepare"])
            samples = []
            for run in range(runs):
                # Not deleted: ext4 does not use an inode again for a while, and looks
                # through all that were freed just now whenever a file is made.
                if (work / "out").exists():
                    (work / "out").rename(work / f"out {name} {run}")
                (work / "out").mkdir()
                if hasattr(method, "direct"):
                    samples.append(spawn(*method.direct(work))[:2])
                else:
                    spent, peak, _ = measure([*base, "--step", "apply"])
                    samples.append((spent - own, peak))
                if sum(spent for spent, _ in samples) > ENOUGH:
                    break
            best = min(samples)
            # Less than what the harness itself varies by is not a figure.
            applied = f"{best[0]:.3f}" if best[0] >= 0.005 else "< 0.005"
            print(
                f"| {name} | {int(text or 0):,} | {max(0, cpu - own):.1f} "
                f"| {memory:.0f} | {applied} | {best[1]:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
