# SPDX-License-Identifier: Apache-2.0
"""What does not make the release when a machine applies it is not signed."""

import dataclasses
import hashlib
import random

import pytest
from fakes.bundles import grow
from fakes.repository import Publisher, manifest_of

from updaterd.artifact.worker import parent
from updaterd.core.manifest import File, Link
from updaterd.errors import RejectedError
from updaterd.release import build
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles import proof

pytestmark = pytest.mark.slow

BROKEN_LOOPS = (
    "import updaterd.artifact.apply.{0} as it; real = it.{1}.add; "
    "it.{1}.add = lambda *a: bytearray(len(real(*a))); "
)
"""Whatever is added to old bytes becomes zeros."""


@pytest.fixture
def space(tmp_path):
    return Publisher(tmp_path / "ops").space


@pytest.fixture
def old(tmp_path, space):
    draw = random.Random(5)
    code = draw.randbytes(300_000)
    files = grow(tmp_path / "1.0", {"code": code, "t": b"t"})
    built = build.build(space, tmp_path / "1.0", files, version="1.0", previous=())
    changed = bytearray(code)
    for at in range(0, 300_000, 5_000):
        changed[at] ^= 1
    grow(tmp_path / "2.0", {"code": bytes(changed), "t": b"t", "n": b"new"})
    return manifest_of("acme", "1.0", 1, files=files, full=built.full)


def push(tmp_path, space, old, make, **more):
    files = grow(tmp_path / "2.0", {})
    return build.build(
        space, tmp_path / "2.0", files, version="2.0", previous=[old], make=make, **more
    )


def rewritten(edge, out, data):
    """The edge, as it is for other bytes: its hash is right."""
    out.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return dataclasses.replace(edge, sha256=sha256, length=len(data))


def flipped(place):
    def change(edge, out):
        data = bytearray(out.read_bytes())
        data[int(place * (len(data) - 1))] ^= 0x40
        return rewritten(edge, out, bytes(data))

    return change


def cut(edge, out):
    return rewritten(edge, out, out.read_bytes()[:-7])


def longer(edge, out):
    return rewritten(edge, out, out.read_bytes() + b"more")


def wrong_length(edge, _):
    return dataclasses.replace(edge, length=edge.length - 1)


def unknown_codec(edge, _):
    return dataclasses.replace(edge, codec="delta9+brotli")


def other_codec(edge, _):
    return dataclasses.replace(edge, codec="full1")


def other_trees(edge, _):
    return dataclasses.replace(edge, from_tree=edge.to_tree)


BREAKS = {
    "flipped in the head": flipped(0.0),
    "flipped in the middle": flipped(0.5),
    "flipped at the end": flipped(1.0),
    "cut": cut,
    "longer": longer,
    "wrong length": wrong_length,
    "a codec that nobody reads": unknown_codec,
    "another codec": other_codec,
    "between other trees": other_trees,
}


@pytest.mark.parametrize("way", BREAKS)
def test_delta_that_is_broken_on_its_way_is_not_signed(tmp_path, space, old, way):
    """The push goes on without it, and says so."""

    def make(before, old_files, root, files, out, **more):
        edge = delta_bundle.build_delta(before, old_files, root, files, out, **more)
        return BREAKS[way](edge, out)

    built = push(tmp_path, space, old, make)

    assert () == built.deltas
    (said,) = built.skipped
    assert "1.0: the delta from 1.0 was applied and does not make" in said
    assert not list(space.work.iterdir())


def test_strict_push_stops_at_a_delta_that_is_not_proven(tmp_path, space, old):
    def make(before, old_files, root, files, out, **more):
        edge = delta_bundle.build_delta(before, old_files, root, files, out, **more)
        return cut(edge, out)

    with pytest.raises(RejectedError) as error:
        push(tmp_path, space, old, make, strict=True)
    assert "not_proven" == error.value.code


def modes(entry):
    return File(entry.path, entry.sha256, entry.length, entry.mode ^ 0o111)


OTHERS = {
    "another mode": lambda files: tuple(
        modes(e) if isinstance(e, File) and e.path == "n" else e for e in files
    ),
    "a link instead": lambda files: tuple(
        Link("n", "code") if e.path == "n" else e for e in files
    ),
    "a file too few": lambda files: tuple(e for e in files if e.path != "n"),
}


@pytest.mark.parametrize("way", OTHERS)
def test_delta_to_another_tree_is_not_signed(tmp_path, space, old, way):
    def make(before, old_files, root, files, out, **more):
        edge = delta_bundle.build_delta(
            before, old_files, root, OTHERS[way](files), out, **more
        )
        right = delta_bundle.tree_id(files)
        return dataclasses.replace(edge, to_tree=right)

    assert () == push(tmp_path, space, old, make).deltas


def test_sound_delta_is_proven_and_signed(tmp_path, space, old):
    (edge,) = push(tmp_path, space, old, delta_bundle.build_delta, strict=True).deltas
    assert "1.0" == edge.from_version


@pytest.mark.parametrize("which", ["compiled", "interpreted"])
def test_delta_that_one_kind_of_machine_cannot_apply_is_not_proven(
    tmp_path, space, old, which
):
    """The compiled loops, or those in Python, are wrong; the others are right."""
    if which == "compiled":
        pytest.importorskip("updaterd.artifact._native", exc_type=ImportError)
    (edge,) = push(tmp_path, space, old, delta_bundle.build_delta).deltas
    workers = {"interpreted": parent.command(interpreted=True)}
    if which == "compiled":
        workers["compiled"] = parent.command()
    argv = workers[which]
    place = argv.index("-c") + 1
    hidden, start = argv[place].rsplit("import updaterd.artifact.worker.child", 1)
    broken = "".join(BROKEN_LOOPS.format(which, name) for name in ("Sparse", "Dense"))
    argv[place] = f"{hidden}{broken}import updaterd.artifact.worker.child{start}"
    files = grow(tmp_path / "2.0", {})
    prover = proof.Prover(tmp_path, min_updater="0.1.0", workers=workers)

    with pytest.raises(RejectedError) as error:
        prover.delta(space.blob(edge.sha256), edge, tmp_path / "1.0", old.files, files)

    assert f"with {which}" in error.value.cause


def test_full_bundle_that_is_not_its_tree_stops_the_push(tmp_path, space, old):
    prover = proof.Prover(tmp_path, min_updater="0.1.0")
    bundle = space.blob(old.full.sha256)
    prover.full(bundle, old.full, old.files)
    data = bytearray(bundle.read_bytes())
    data[-9] ^= 1
    other = tmp_path / "flipped"
    other.write_bytes(data)
    full = dataclasses.replace(old.full, sha256=hashlib.sha256(data).hexdigest())

    with pytest.raises(RejectedError) as error:
        prover.full(other, full, old.files)
    assert "not_proven" == error.value.code
