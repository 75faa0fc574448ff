"""Deltas against the known methods: bytes, CPU and peak memory, in one run.

    benchmarks/delta.py OLD_TREE NEW_TREE [--only NAME ...] [--tufup PYTHON]

Every method runs in a process of its own, measured by wait4. `floor` is what no
updater can do without: link what did not change, read the old, write the new and
hash it. Peers that are not installed are left out and named. `--tufup` is the
interpreter of an environment that has tufup (it pins an old bsdiff4).
"""

import argparse
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

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

    def create(self, work: Path, old: Path, new: Path) -> int:
        import pickle

        from updaterd.release import deltas, tree

        before, after = tree.scan(old), tree.scan(new)
        delta = deltas.build_delta(
            old,
            before,
            new,
            after,
            work / "updaterd",
            from_version="1",
            to_version="2",
        )
        (work / "updaterd.job").write_bytes(pickle.dumps((delta, before, after)))
        return delta.length

    def apply(self, work: Path, old: Path, new: Path) -> None:
        # The worker itself: stdin is the job as the pipeline would send it.
        data = (work / "updaterd.stdin").read_bytes()
        pipe = os.memfd_create("job")
        os.write(pipe, data)
        os.lseek(pipe, 0, os.SEEK_SET)
        os.dup2(pipe, 0)
        args = [sys.executable, "-I", "-m", "updaterd.artifact.child"]
        os.execv(sys.executable, args)

    def prepare(self, work: Path, old: Path) -> None:
        import pickle

        from updaterd.artifact import sandbox

        delta, before, after = pickle.loads((work / "updaterd.job").read_bytes())
        job = sandbox.Job(
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
        (work / "updaterd.stdin").write_bytes(sandbox._plain(job))


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

    def create(self, work: Path, old: Path, new: Path) -> int:
        return 0

    def apply(self, work: Path, old: Path, new: Path) -> None:
        out = work / "out"
        for path in sorted(new.rglob("*")):
            there, before = out / path.relative_to(new), old / path.relative_to(new)
            if path.is_dir():
                there.mkdir(exist_ok=True)
            elif path.is_symlink():
                there.symlink_to(path.readlink())
            elif before.is_file() and path.name in SAME.get(str(path.parent), ()):
                there.hardlink_to(before)
            else:
                if before.is_file():
                    with before.open("rb", buffering=0) as file:
                        while file.read(1 << 19):
                            pass
                state = hashlib.sha256()
                with path.open("rb", buffering=0) as a, there.open("wb", 0) as b:
                    while data := a.read(1 << 19):
                        state.update(data)
                        b.write(data)


SAME: dict[str, set[str]] = {}


def methods(tufup: str | None) -> dict[str, object]:
    found: dict[str, object] = {
        "floor": Floor(),
        "updaterd": Updaterd(),
        "bsdiff4 tar": Bsdiff(),
        "full tar.xz": Full(),
    }
    try:
        import hdiffpatch  # noqa: F401

        found["HDiffPatch lzma2"] = HDiff()
    except ImportError:
        print("hdiffpatch is not installed: left out", file=sys.stderr)
    if shutil.which("zstd"):
        found["zstd-19 patch-from"] = Command(
            "zstd -q -f -19 --ultra --long=27 --patch-from=a.tar b.tar -o patch",
            "zstd -q -f -d --long=27 --memory=1024MB --patch-from=a.tar patch -o c.tar",
        )
    if shutil.which("xdelta3"):
        found["xdelta3"] = Command(
            "xdelta3 -q -f -9 -S lzma -B 1073741824 -e -s a.tar b.tar patch",
            "xdelta3 -q -f -B 1073741824 -d -s a.tar patch c.tar",
        )
    if tufup:
        found["tufup"] = Tufup(tufup)
    return found


def same(old: Path, new: Path) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for path in new.rglob("*"):
        before = old / path.relative_to(new)
        if (
            path.is_file()
            and before.is_file()
            and path.read_bytes() == before.read_bytes()
        ):
            out.setdefault(str(path.parent), []).append(path.name)
    return out


def measure(args: list[str]) -> tuple[float, float, str]:
    """Run in a child; return CPU seconds, peak MB and what it printed."""
    read, write = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, __file__, *args],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)],
    )
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(pid, 0)
    if status:
        return -1, -1, ""
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--tufup")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    old, new = options.old.resolve(), options.new.resolve()
    if options.step == "same":
        (options.work / "same.json").write_text(json.dumps(same(old, new)))
        return 0
    if options.step:
        method = methods(options.tufup)[options.name]
        if options.step == "create":
            print(method.create(options.work, old, new))
        elif options.step == "prepare":
            method.prepare(options.work, old)
        else:
            SAME.update(json.loads((options.work / "same.json").read_text()))
            method.apply(options.work, old, new)
        return 0
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        work = Path(folder)
        # In a child, as everything that takes memory: a child starts with its
        # parent's peak, so this process has to stay small.
        measure([str(old), str(new), "--step", "same", "--work", folder])
        print("| method | bytes | create CPU s | MB | apply CPU s | MB |")
        print("|---|---:|---:|---:|---:|---:|", flush=True)
        for name in methods(options.tufup):
            if options.only and name not in options.only:
                continue
            base = [str(old), str(new), "--name", name, "--work", folder]
            if options.tufup:
                base += ["--tufup", options.tufup]
            cpu, memory, text = measure([*base, "--step", "create"])
            if name == "updaterd":
                measure([*base, "--step", "prepare"])
            runs = []
            for _ in range(3):
                shutil.rmtree(work / "out", ignore_errors=True)
                (work / "out").mkdir()
                runs.append(measure([*base, "--step", "apply"])[:2])
            best = min(runs)
            print(
                f"| {name} | {int(text or 0):,} | {cpu:.1f} | {memory:.0f} "
                f"| {best[0]:.2f} | {best[1]:.0f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
