# SPDX-License-Identifier: Apache-2.0
"""Fuzz deltas that look into archives, guided by coverage, by both twins at once.

    pip install 'updaterd[fuzz]'
    python tests/fuzz/fuzz_archives.py -max_total_time=1200 -rss_limit_mb=512

An input is operations, an archives stream and bytes that old archives are overwritten
with. What must hold: a typed refusal, or exactly the signed tree, or the names of the
old files that were damaged; the same with the compiled loops and with those in Python,
to the last byte that is left behind; and the finder of streams finds its way through
the damaged archives, within its budget.
"""

import contextlib
import hashlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT.parent)]

with atheris.instrument_imports(include=["updaterd"]):
    from updaterd.artifact import codecs, container, patch
    from updaterd.artifact.apply import interpreted, loops
    from updaterd.artifact.archives import layout, virtual
    from updaterd.artifact.job import Job
    from updaterd.artifact.programs import projection, projector
    from updaterd.core.manifest import tree_id
    from updaterd.errors import RejectedError
    from updaterd.release.bundles.archives import finder

from fakes.archives import release, text, zipped  # noqa: E402 # after the path is set
from fakes.bundles import assemble, grow, perform  # noqa: E402 # as above

from updaterd.release.bundles.delta import build_inflated  # noqa: E402 # as above

FORMATS = (layout, patch, virtual)  # instrumented when they are imported here
CONTROL, IMAGES, ARCHIVES = 1, 5, 6
DAMAGED = ("a.jar", "other.zip")


def content(changed):
    files = release(changed)
    return {name: files[name] for name in (*DAMAGED, "d.bin", "stays")} | {
        "again.zip": zipped({"t": text(5, 9000 + changed)}),
        "more.zip": zipped({"t": text(5, 9001 + changed), "u": text(6)}),
    }


class Target:
    def __init__(self, base):
        self.base = base
        self.old = grow(base / "old", content(0))
        self.new = grow(base / "new", content(1))
        made = build_inflated(
            base / "old", self.old, base / "new", self.new, base / "delta",
            from_version="1", to_version="2",
        )  # fmt: skip
        assert made is not None
        with (base / "delta").open("rb") as file:
            table = container.read(file.fileno(), container.DELTA, length=made.length)
            self.streams = [
                codecs.read_whole(file.fileno(), row, "seed", limit=2**24)
                for row in table
            ]
        self.whole = {name: (base / "old" / name).read_bytes() for name in DAMAGED}
        self.twins = (
            (loops.best(), projection.implementation()),
            (interpreted, projector),
        )
        self.counts = dict.fromkeys(("tree", "damaged", "refused"), 0)

    def seed(self):
        control, archives = self.streams[CONTROL], self.streams[ARCHIVES]
        head = len(control).to_bytes(3, "little") + len(archives).to_bytes(3, "little")
        return head + control + archives

    def one(self, data):
        sizes = int.from_bytes(data[:3], "little"), int.from_bytes(data[3:6], "little")
        rest = data[6:]
        control, rest = rest[: sizes[0]], rest[sizes[0] :]
        archives, damage = rest[: sizes[1]], rest[sizes[1] :]
        for name in DAMAGED:
            whole = bytearray(self.whole[name])
            at = int.from_bytes(damage[:2], "little") % len(whole)
            whole[at : at + len(damage[2:])] = damage[2:]
            (self.base / "old" / name).write_bytes(whole)
        streams = list(self.streams)
        streams[CONTROL], streams[ARCHIVES] = control, archives
        raw = assemble(
            container.DELTA, *[(codecs.STORED, len(part), part) for part in streams]
        )
        ends = [self.apply(raw, *twin) for twin in self.twins]
        assert ends[0] == ends[1], "the twins differ"
        if damage:
            budget = finder.Budget(self.base)
            budget.begin(len(damage))
            finder.survey(damage, budget)

    def apply(self, raw, some, module):
        loops.best, projection.implementation = lambda: some, lambda: module
        (self.base / "hostile").write_bytes(raw)
        out = self.base / "out"
        out.mkdir(mode=0o700)
        job = Job(
            kind="delta",
            codec="delta3",
            bundle=self.base / "hostile",
            bundle_sha256=hashlib.sha256(raw).hexdigest(),
            bundle_length=len(raw),
            destination=out,
            files=self.new,
            tree=tree_id(self.new),
            old=self.base / "old",
            old_files=self.old,
        )
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                report = perform(job)
        except RejectedError as error:
            self.counts["refused"] += 1
            end = (error.code, error.cause)
        else:
            self.counts["damaged" if report.missing else "tree"] += 1
            end = (report.missing, report.bad_old_files)
            missing = {file.path for file in self.new} - set(report.missing)
            assert {path.name for path in out.iterdir()} == missing
        left = {path.name: path.read_bytes() for path in out.iterdir()}
        shutil.rmtree(out)
        return end, left


def main():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        base = Path(folder)
        (base / "trees").mkdir()
        corpus = base / "corpus"
        corpus.mkdir()
        target = Target(base / "trees")
        for number, damage in enumerate((b"", b"\x40\0damage", b"\0\0" + zipped({}))):
            target.one(target.seed() + damage)
            (corpus / str(number)).write_bytes(target.seed() + damage)
        assert target.counts["tree"] == 2, target.counts
        assert target.counts["damaged"] == 4, target.counts
        fds = len(os.listdir("/proc/self/fd"))

        def one(data):
            target.one(data)
            assert len(os.listdir("/proc/self/fd")) <= fds + 2, "left open"

        # libFuzzer leaves by exit(): what it writes goes where the caller says.
        atheris.Setup([*sys.argv, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
