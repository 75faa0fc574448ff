# SPDX-License-Identifier: Apache-2.0
"""Fuzz everything that reads a bundle, guided by coverage. A longer run than the tests.

    pip install 'updaterd[fuzz]'
    python tests/fuzz/fuzz_bundle.py -max_total_time=1200 -rss_limit_mb=256

The first byte of an input chooses what the rest is: a full bundle, a delta bundle, a
`BSDIFF40` patch; a delta bundle in the middle of a path, where no listing is signed;
or the raw streams of a delta or a patch, which are then packed honestly, so that the
parsers behind the decompressors see all of it; or operations and images of a delta of
programs, of x86-64 or of AArch64; or a delta whose extra stream has the old files as a
prefix, signed or not. It also chooses who applies deltas: what is compiled, or its twin
in Python. What must hold for any bytes: a typed refusal, or exactly the
signed tree; nothing outside the staging directory is touched.
"""

import bz2
import contextlib
import hashlib
import io
import json
import os
import shutil
import struct
import sys
import tempfile
from base64 import b64decode
from itertools import pairwise
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT.parent), str(ROOT / "unit" / "artifact")]

with atheris.instrument_imports(include=["updaterd"]):
    from updaterd.artifact import bsdiff, codecs, container, patch, unpack
    from updaterd.artifact.apply import interpreted, loops
    from updaterd.artifact.job import Job
    from updaterd.artifact.programs import arm, listed, projection, projector
    from updaterd.artifact.verify import verify_tree
    from updaterd.core.manifest import tree_id
    from updaterd.errors import RejectedError

from fakes import arm_programs  # noqa: E402 # after the path is set
from fakes.bundles import assemble, grow, perform  # noqa: E402 # after the path is set
from fakes.programs import delta, moved  # noqa: E402 # as above
from test_golden import GOLDEN, NEW, OLD, PROSE  # noqa: E402 # as above

MODES = 11
FULL, DELTA, BSDIFF, MIDDLE, RAW, RAW_MIDDLE, RAW_BSDIFF, IMAGES, ARM = range(9)
PRIMED, PRIMED_MIDDLE = range(9, MODES)
FORMATS = (
    arm,
    bsdiff,
    listed,
    patch,
    unpack,
)  # instrumented when they are imported here
LENGTHS = struct.Struct("<5H")


def streams(data):
    """Return five raw streams, cut by five lengths at the start."""
    head, rest = data[: LENGTHS.size], data[LENGTHS.size :]
    out = []
    for length in LENGTHS.unpack(head.ljust(LENGTHS.size, b"\0")):
        out.append(rest[:length])
        rest = rest[length:]
    return out


def bundle(mode, data):
    if mode in (RAW, RAW_MIDDLE):
        stored = [(codecs.STORED, len(raw), raw) for raw in streams(data)]
        return assemble(container.DELTA, *stored)
    if mode == RAW_BSDIFF:
        head, *raw = streams(data)[:4]
        packed = [bz2.compress(part) for part in raw]
        size = int.from_bytes(head[:8], "little", signed=True)
        sizes = len(packed[0]), len(packed[1]), size
        return struct.pack("<8sqqq", b"BSDIFF40", *sizes) + b"".join(packed)
    return data


class Target:
    def __init__(self, base):
        self.base = base
        self.old = grow(base / "old", OLD)
        self.new = grow(base / "new", NEW)
        self.prose = [
            grow(base / "prose" / name, files)
            for name, files in zip(("old", "new"), PROSE, strict=True)
        ]
        (base / "precious").write_bytes(b"precious")
        self.programs = {
            IMAGES: ("delta2+xz", base / "x86", *moved(base / "x86")),
            ARM: ("delta4+xz", base / "arm", *arm_programs.moved(base / "arm")),
        }
        self.twins = (
            (loops.best(), projection.implementation()),
            (interpreted, projector),
        )
        self.before = self.outside()
        self.counts = dict.fromkeys(("tree", "refused"), 0)

    def outside(self):
        """Return everything but the bundle and the staging directory."""
        return {
            path: (os.lstat(path).st_mtime_ns, os.lstat(path).st_mode)
            for path in sorted(self.base.rglob("*"))
            if path.relative_to(self.base).parts[0] not in {"out", "hostile"}
        }

    def one(self, data):
        twin, mode = divmod(data[0] if data else DELTA, MODES)
        some, module = self.twins[twin % 2]
        loops.best, projection.implementation = lambda: some, lambda: module
        if mode in self.programs:
            self.images(mode, data[1:])
            return
        if mode in (PRIMED, PRIMED_MIDDLE):
            self.primed(mode, data[1:])
            return
        raw = bundle(mode, data[1:])
        self.apply(
            raw,
            kind="full" if mode == FULL else "delta",
            codec="bsdiff40" if mode in (BSDIFF, RAW_BSDIFF) else "delta1+bz2+xz+zstd",
            files=None if mode in (MIDDLE, RAW_MIDDLE) else self.new,
        )

    def images(self, mode, data):
        """Apply the delta of programs with other operations and images."""
        codec, base, old, new, honest = self.programs[mode]
        length = int.from_bytes(data[:2], "little")
        control, stream = data[2 : 2 + length], data[2 + length :]
        self.apply(
            delta([honest[0], control, *honest[2:5], stream]),
            codec=codec,
            files=new,
            tree=tree_id(new),
            old=base / "old",
            old_files=old,
        )

    def primed(self, mode, data):
        """Apply a delta whose extra stream has the old files as a prefix."""
        old, new = self.prose
        self.apply(
            data,
            made=new,
            codec="delta5+bz2+xz+zstd",
            files=new if mode == PRIMED else None,
            tree=tree_id(new),
            old=self.base / "prose" / "old",
            old_files=old,
        )

    def apply(self, raw, made=None, **changes):
        (self.base / "hostile").write_bytes(raw)
        out = self.base / "out"
        out.mkdir(mode=0o700)
        fields = {
            "kind": "delta",
            "bundle": self.base / "hostile",
            "bundle_sha256": hashlib.sha256(raw).hexdigest(),
            "bundle_length": len(raw),
            "destination": out,
            "tree": tree_id(self.new),
            "old": self.base / "old",
            "old_files": self.old,
        }
        job = Job(**(fields | changes))
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                perform(job)
        except RejectedError:
            self.counts["refused"] += 1
        else:
            self.counts["tree"] += 1
            assert not verify_tree(out, made or changes["files"] or self.new)
        finally:
            shutil.rmtree(out)
        assert self.outside() == self.before, "something outside was touched"


def seeds(folder):
    names = {FULL: "full1", DELTA: "delta1", BSDIFF: "bsdiff40", MIDDLE: "delta1"}
    for mode, name in names.items():
        yield bytes([mode]) + (GOLDEN / name).read_bytes()
    with (GOLDEN / "delta1").open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        table = container.read(file.fileno(), container.DELTA, length=length)
        raw = [codecs.read_whole(file.fileno(), s, "seed", limit=9999) for s in table]
    for mode in (RAW, RAW_MIDDLE):
        yield bytes([mode]) + LENGTHS.pack(*map(len, raw)) + b"".join(raw)
    data = (GOLDEN / "bsdiff40").read_bytes()
    _, control, diff, size = struct.unpack("<8sqqq", data[:32])
    ends = (32, 32 + control, 32 + control + diff, len(data))
    parts = [bz2.decompress(data[a:b]) for a, b in pairwise(ends)]
    raw = [struct.pack("<q", size), *parts, b""]
    yield bytes([RAW_BSDIFF]) + LENGTHS.pack(*map(len, raw)) + b"".join(raw)


def primed():
    facts = json.loads((GOLDEN / "facts.json").read_text())["bundles"]["delta5"]
    assert facts["codec"] == "delta5+xz+zstd", facts
    for mode in (PRIMED, PRIMED_MIDDLE):
        yield bytes([mode]) + b64decode(facts["bundle"])


def programs(target):
    for mode, (*_, honest) in target.programs.items():
        head = bytes([mode]) + len(honest[1]).to_bytes(2, "little")
        yield head + honest[1] + honest[5]


def main():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        base = Path(folder)
        (base / "trees").mkdir()
        corpus = base / "corpus"
        corpus.mkdir()
        target = Target(base / "trees")
        some = [*seeds(corpus), *programs(target), *primed()]
        some += [bytes([seed[0] + MODES]) + seed[1:] for seed in some]
        for number, seed in enumerate(some):
            target.one(seed)
            (corpus / str(number)).write_bytes(seed)
        assert target.counts["tree"] == 2 * MODES, target.counts
        # libFuzzer leaves by exit(): what it writes goes where the caller says.
        atheris.Setup([*sys.argv, str(corpus)], target.one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
