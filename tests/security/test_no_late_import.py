# SPDX-License-Identifier: Apache-2.0
"""In the cage nothing can be opened, so nothing may be imported there: for any bundle.

Landlock refuses the file, that looks like a failing disk, and the release is tried for
ever. The worker here is the real one; a finder notes whatever it looks for too late.
"""

import hashlib
import random
from contextlib import closing

import bsdiff4
import pytest
from fakes.archives import release
from fakes.bundles import delta_job, grow, make_delta
from fakes.compiled import build, source
from fakes.uncompiled import BOTH
from fakes.uncompiled import command as worker

from updaterd.artifact.destination import Destination
from updaterd.artifact.verify import verify_tree
from updaterd.artifact.worker import parent
from updaterd.artifact.worker.answers import Failure
from updaterd.core.bundle_kinds import BSDIFF, FULL
from updaterd.core.frozen import replaced
from updaterd.core.routes import codec_name
from updaterd.release.bundles import full as release_bundle
from updaterd.release.bundles.delta import build_inflated

LATE = 99
WATCHED = f"""
import os, sys
real, end = child.confine, os._exit
class Late:
    names = []
    def find_spec(self, name, path=None, target=None):
        self.names.append(name)
def confine(*given, **named):
    confined = real(*given, **named)
    sys.meta_path.insert(0, Late())
    return confined
def leave(code):
    end({LATE} if Late.names else code)
child.confine, os._exit = confine, leave
"""


def command(which):
    """Return how a worker is started that ends with LATE when it imports too late."""
    argv = worker(which)
    place = argv.index("-c") + 1
    start, leave = argv[place].rsplit("; ", 1)
    argv[place] = f"{start}; exec({WATCHED!r}); {leave}"
    return argv


@pytest.fixture
def trees(tmp_path):
    """An old tree and a new one: names and links of all sorts, files long and short."""
    draw = random.Random(3)
    data = bytearray(draw.randbytes(1_200_000))
    grow(tmp_path / "old", {"a": b"line\n" * 900, "long": bytes(data), "stays": b"s"})
    for at in range(0, len(data), 7000):
        data[at] ^= 1
    new = {
        "a": b"line\n" * 700 + b"last\n",
        "café/x": "été\n".encode() * 300,
        "long": bytes(data),
        "rare": draw.randbytes(300),
        "stays": b"s",
        "zu/日本": "../café/x",
    }
    grow(tmp_path / "new", new)
    return tmp_path


def _scan(base):
    return grow(base / "old", {}), grow(base / "new", {})


def _delta(base):
    delta = make_delta(base)
    return delta_job(base, base / "delta", *_scan(base), codec=delta.codec)


def _program_delta(base):
    for name, inserted in (("old", ()), ("new", (5,))):
        build(base / name / "program", source(60, inserted), "pie")
        (base / name / "program.c").unlink()
        (base / name / "program").chmod(0o755)
    job = _delta(base)
    assert job.codec.startswith("delta2")
    return job


def _inflated_delta(base):
    for name, changed in (("old", 0), ("new", 1)):
        grow(base / name, release(changed))
    old, new = _scan(base)
    delta = build_inflated(
        base / "old", old, base / "new", new, base / "delta",
        from_version="1", to_version="2",
    )  # fmt: skip
    return delta_job(base, base / "delta", old, new, codec=delta.codec)


def _middle(base):
    return replaced(_delta(base), files=None)


def _full(base):
    files = _scan(base)[1]
    full = release_bundle.build_full(base / "new", files, base / "full")
    return delta_job(base, base / "full", (), files, kind="full", codec=full.codec)


def _patch(base):
    trees = _scan(base)
    joined = (
        b"".join((base / t / e.path).read_bytes() for e in f if hasattr(e, "mode"))
        for t, f in zip(("old", "new"), trees, strict=True)
    )
    (base / "patch").write_bytes(bsdiff4.diff(*joined))
    return delta_job(base, base / "patch", *trees, codec=BSDIFF)


KINDS = [_delta, _program_delta, _inflated_delta, _middle, _full, _patch]


def _ask(job):
    """Return how the opener ends, with LATE when it imports something too late."""
    with closing(Destination(job.destination)) as destination:
        return parent.ask(
            replaced(job, destination=destination.root), argv=command("compiled")
        )


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__.strip("_"))
def test_no_bundle_makes_the_opener_import_anything(trees, make, which):
    """Whatever its kind, and whatever names it brings."""
    job = make(trees)

    parent.run(job, argv=command(which))

    assert not verify_tree(job.destination, grow(trees / "new", {}))


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__.strip("_"))
def test_no_broken_bundle_makes_the_opener_import_anything(trees, make):
    """What is wrong with it is said without another module, too."""
    job = make(trees)
    data = bytearray(job.bundle.read_bytes())
    for at in range(len(data) // 3, len(data), 50):
        data[at] ^= 0xFF
    job.bundle.write_bytes(data)
    job = replaced(job, bundle_sha256=hashlib.sha256(data).hexdigest())

    answer = _ask(job)

    assert 0 == answer.code, "it imported something"
    if isinstance(answer.end, Failure):
        assert answer.end.code not in {"", "disk_error"}
    else:  # a full bundle's streams that are stored: the parent hashes what is made
        assert verify_tree(job.destination, grow(trees / "new", {}))


def test_a_stream_whose_compression_the_bundle_does_not_name_is_refused(trees):
    """Its decoder was not imported; the bundle is at fault, not the machine's disk."""
    for name in ("long", "rare"):  # what does not get shorter is stored as it is
        (trees / "new" / name).unlink()
    job = replaced(_full(trees), codec=codec_name(FULL, frozenset()))

    answer = _ask(job)

    assert 0 == answer.code, "it imported something"
    assert isinstance(answer.end, Failure)
    assert "unknown_codec" == answer.end.code
