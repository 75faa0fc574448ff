# SPDX-License-Identifier: Apache-2.0
"""A full bundle holds the whole tree, and gives up chosen files by themselves."""

import hashlib
import random
import subprocess
import sys
from itertools import pairwise

import pytest
from fakes.bundles import grow, perform

from updaterd.artifact import unpack
from updaterd.artifact.job import Job
from updaterd.artifact.verify import verify_tree
from updaterd.core.frozen import replaced
from updaterd.core.manifest import tree_id
from updaterd.errors import RejectedError
from updaterd.release.bundles import full as full_bundle


@pytest.fixture
def pushed(tmp_path, monkeypatch):
    """A tree of several frames, bundled."""
    monkeypatch.setattr(full_bundle, "FRAME", 30_000)
    draw = random.Random(1)
    files = {f"d{n}/f{n}": draw.randbytes(20_000) for n in range(8)}
    files |= {"copy": files["d3/f3"], "empty": b"", "bin/+x": b"#!", "l": "empty"}
    listing = grow(tmp_path / "tree", files)
    full = full_bundle.build_full(tmp_path / "tree", listing, tmp_path / "full")
    return tmp_path, listing, full


def _job(base, listing, full, **changes) -> Job:
    out = base / f"out{len(list(base.iterdir()))}"
    out.mkdir()
    job = Job(
        kind="full",
        codec=full.codec,
        bundle=base / "full",
        bundle_sha256=full.sha256,
        bundle_length=full.length,
        destination=out,
        files=listing,
        tree=tree_id(listing),
    )
    return replaced(job, **changes)


def test_unpacked_is_what_was_bundled(pushed):
    """Contents, modes, links, duplicates and empty files."""
    base, listing, full = pushed
    full_bundle.unpack(base / "full", full, listing, base / "back")
    assert not verify_tree(base / "back", listing)


def test_the_same_tree_makes_the_same_bundle(pushed):
    """Reproducible byte for byte, whatever the number of cores."""
    base, listing, full = pushed
    again = full_bundle.build_full(base / "tree", listing, base / "again", workers=1)
    assert full == again


def test_progress_moves_while_a_frame_is_packed(tmp_path):
    """A bar that stands still for the seconds a frame takes says nothing."""
    listing = grow(tmp_path / "tree", {"a": bytes(5 << 20), "b": b"b" * 100})
    seen = [0]
    full_bundle.build_full(
        tmp_path / "tree",
        listing,
        tmp_path / "full",
        progress=lambda _what, done, _total: seen.append(done),
    )

    steps = [after - before for before, after in pairwise(seen)]
    assert all(0 < step <= 1 << 20 for step in steps)
    assert seen[-1] == (5 << 20) + 100


def test_chosen_files_need_only_their_frames(pushed):
    """With holes where nobody looks, the wanted files still come out right."""
    base, listing, full = pushed
    wanted = frozenset({"d3/f3", "d6/f6", "l"})
    data = (base / "full").read_bytes()
    sparse = bytearray(len(data))
    ranges = unpack.ranges(data[:65536], len(data), listing, wanted)
    for start, end in ranges:
        sparse[start:end] = data[start:end]
    (base / "holes").write_bytes(sparse)

    job = _job(base, listing, full, only=wanted, partial=True, bundle=base / "holes")
    perform(job)

    found = {
        p.relative_to(job.destination).as_posix() for p in job.destination.rglob("*")
    }
    assert wanted == found - {"d3", "d6"}
    chosen = tuple(entry for entry in listing if entry.path in wanted)
    assert not verify_tree(job.destination, chosen)
    assert sum(end - start for start, end in ranges) < len(data)


def test_a_flipped_byte_anywhere_is_refused(pushed):
    """By the bundle's hash; and where that is unknown, by the file's."""
    base, listing, full = pushed
    data = bytearray((base / "full").read_bytes())
    for at in (0, 5, 7, len(data) // 2, len(data) - 1):
        bad = data.copy()
        bad[at] ^= 1
        (base / "bad").write_bytes(bad)
        for partial in (False, True):
            job = _job(base, listing, full, bundle=base / "bad", partial=partial)
            with pytest.raises(RejectedError):
                perform(job)


WITHOUT_RIGHTS = """
import ctypes, sys
from pathlib import Path
from updaterd.artifact.verify import verify_tree
from updaterd.core.tree import File
# Version 3 of the call, this thread, no capability: root is as other users are.
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
try:
    open(sys.argv[1] + "/f")
except PermissionError:
    print(verify_tree(Path(sys.argv[1]), [File("f", sys.argv[2], 6, 0)]))
"""


def test_a_file_that_nobody_may_read_is_verified_by_its_owner(tmp_path):
    """A mode of 0000 is the application's wish; the updater need not be root."""
    (tmp_path / "f").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "f").chmod(0)
    argv = [sys.executable, "-c", WITHOUT_RIGHTS, tmp_path, digest]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "()" == done.stdout.strip()
    assert 0 == (tmp_path / "f").stat().st_mode & 0o7777
