# SPDX-License-Identifier: Apache-2.0
"""Deltas of AArch64 programs: beside the plain ones, for whoever reads them.

The compiler for AArch64 is not on every machine that runs tests: what needs it is
skipped there. The programs of `fakes.arm_programs` do without.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from fakes import compiled
from fakes.arm_programs import program
from fakes.bundles import delta_job, grow, run
from fakes.tools import need

from updaterd.artifact.programs.image import ARM, FRAMES, WORDS, Image
from updaterd.artifact.verify import verify_tree
from updaterd.core.routes import codecs_since
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles import inspection
from updaterd.release.bundles.programs import elf, matching

pytestmark = pytest.mark.skipif(
    matching.compiled() is None, reason="needs the compiled module"
)

GCC = "aarch64-linux-gnu-gcc"
NOPS = struct.pack("<I", 0xD503201F) * 8


def _elf(inserted=b""):
    """Return a program as a linker would leave it, without section headers."""
    many = [program(inserted, at=3 + n)[0] for n in range(1)]
    data = many[0]
    end, data_at = len(data), 0x4000 + len(inserted)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    for flags, offset, stored in ((5, 0, data_at), (6, data_at, end - data_at)):
        address = 0x10000 + offset + 0x1000 * (offset > 0)
        row = offset, address, address, stored, stored, 1
        head += struct.pack("<II6Q", 1, flags, *row)
    return head + data[len(head) :]


def _both(base, before, after):
    """Return the listings, the plain delta, and the one beside it."""
    old, new = grow(base / "old", before), grow(base / "new", after)
    trees = base / "old", old, base / "new", new
    made = [
        make(*trees, base / name, from_version="1", to_version="2")
        for name, make in (
            ("plain", delta_bundle.build_delta),
            ("delta", delta_bundle.build_arm),
        )
    ]
    return old, new, *made


def test_old_updaters_get_the_plain_delta_and_new_ones_a_smaller_one(tmp_path):
    before, after = {"app+x": _elf()}, {"app+x": _elf(NOPS)}
    old, new, plain, better = _both(tmp_path, before, after)
    first = codecs_since("0.1.0")

    assert plain.codec in first
    assert better.codec.startswith("delta4")
    assert better.codec not in first
    assert better.codec in codecs_since("0.3.0")
    assert better.length < plain.length
    assert inspection.inspect(tmp_path / "delta").codec == better.codec
    assert inspection.inspect(tmp_path / "plain").codec == plain.codec
    job = delta_job(tmp_path, tmp_path / "delta", old, new, codec=better.codec)
    run(job)
    assert not verify_tree(job.destination, new)


def test_without_such_programs_there_is_no_second_delta(tmp_path):
    """Also where there was none before: nothing is made of an old one."""
    text = {"t": b"text\n" * 9000}
    assert _both(tmp_path / "a", text, {"t": b"other\n" * 9000})[3] is None
    assert _both(tmp_path / "b", text, {"app+x": _elf()})[3] is None


def test_a_program_of_another_processor_is_a_file_like_any_other():
    data = bytearray(_elf())
    assert elf.describe(bytes(data)).arm
    data[18:20] = struct.pack("<H", 40)  # 32-bit ARM
    assert elf.describe(bytes(data)) is None


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two versions of an AArch64 program, by gcc."""
    if shutil.which(GCC) is None:
        pytest.skip(f"no {GCC}")
    base = tmp_path_factory.mktemp("arm")
    texts = compiled.source(60), compiled.source(60, (20, 45))
    return [
        compiled.build(base / f"p{number}", text, "pie", GCC)
        for number, text in enumerate(texts)
    ]


@pytest.mark.slow
def test_a_program_of_gcc_is_described_and_remade_from_a_fraction(tmp_path, built):
    before, after = ({"app+x": data} for data in built)
    described = elf.describe(built[0])
    kinds = set(memoryview(described.regions).cast("q")[::8])
    assert {ARM, WORDS, FRAMES} <= kinds
    Image(described.segments, described.regions, b"")
    old, new, plain, better = _both(tmp_path, before, after)

    assert better.length < 0.5 * plain.length
    job = delta_job(tmp_path, tmp_path / "delta", old, new, codec=better.codec)
    run(job)
    assert not verify_tree(job.destination, new)
    need("qemu-aarch64")
    root = Path("/usr/aarch64-linux-gnu")
    if not (root / "lib").is_dir():
        pytest.skip("no libraries of AArch64")
    made = Path(job.destination) / "app"
    done = subprocess.run(["qemu-aarch64", "-L", root, made], check=False)
    assert done.returncode >= 0
