# SPDX-License-Identifier: Apache-2.0
"""What does not make the release when a machine applies it is not signed."""

import dataclasses
import hashlib
import random

import pytest
from fakes.archives import release
from fakes.bundles import assemble, grow, pack
from fakes.repository import PLATFORM, Publisher, manifest_of

from updaterd.artifact import codecs, container
from updaterd.artifact.worker import parent
from updaterd.core.bundle_kinds import DELTA, KINDS
from updaterd.core.manifest import File, Link, tree_id
from updaterd.core.routes import CODECS, choose_route, codecs_since
from updaterd.errors import RejectedError
from updaterd.release import build, publish
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles import proof
from updaterd.release.upkeep import verification

pytestmark = pytest.mark.slow

BROKEN_LOOPS = (
    "import updaterd.artifact.apply.{0} as it; real = it.{1}.add; "
    "it.{1}.add = lambda *a: bytearray(len(real(*a))); "
)
"""Whatever is added to old bytes becomes zeros."""


MADE = 400_000
"""Bytes that the delta makes."""


@pytest.fixture
def publisher(tmp_path):
    return Publisher(tmp_path / "ops")


@pytest.fixture
def space(publisher):
    return publisher.space


@pytest.fixture
def old(tmp_path, space):
    draw = random.Random(5)
    code = draw.randbytes(MADE)
    common = {"t": b"t", "l": "t"}
    files = grow(tmp_path / "1.0", {"code": code, **common})
    built = build.build(space, tmp_path / "1.0", files, version="1.0", previous=())
    changed = bytearray(code)
    for at in range(0, MADE, 5_000):
        changed[at] ^= 1
    grow(tmp_path / "2.0", {"code": bytes(changed), "nn/new": b"", "t": b"t"})
    (tmp_path / "2.0" / "l").symlink_to("nn")
    (tmp_path / "2.0" / "t").chmod(0o755)
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


def told_other(change):
    """Break the listing that the delta is made for; its edge says the signed tree."""

    def make(before, old_files, root, files, out, **more):
        edge = delta_bundle.build_delta(
            before, old_files, root, change(files), out, **more
        )
        return dataclasses.replace(edge, to_tree=tree_id(files))

    return make


def entries(**changes):
    return lambda files: tuple(changes.get(e.path, lambda e: e)(e) for e in files)


def wrong_mode(entry):
    return File(entry.path, entry.sha256, entry.length, entry.mode ^ 0o111)


def streams(edge, out):
    """Return the raw streams of a delta."""
    with out.open("rb") as file:
        table = container.read(file.fileno(), container.DELTA, length=edge.length)
        return [
            codecs.read_whole(file.fileno(), packed, "stream", limit=1 << 22)
            for packed in table
        ]


def repacked(edge, out, **changed):
    names = ("script", "control", "runs", "changes", "extra")
    raw = dict(zip(names, streams(edge, out), strict=True))
    raw |= {name: change(raw[name]) for name, change in changed.items()}
    data = assemble(container.DELTA, *map(pack, raw.values()))
    return rewritten(dataclasses.replace(edge, codec="delta1+xz"), out, data)


def hostile_size(edge, out):
    """Its script's length says 2**50 bytes; there are a few."""
    first, *others = map(pack, streams(edge, out))
    data = assemble(container.DELTA, (first[0], 1 << 50, first[2]), *others)
    return rewritten(dataclasses.replace(edge, codec="delta1+xz"), out, data)


def too_much_memory(edge, _):
    """It is sound, and says that it takes more than machines have for it."""
    return dataclasses.replace(edge, memory=1 << 30)


def bomb(edge, out):
    """A few bytes become 64 MiB that would all have to be held."""
    return repacked(edge, out, script=lambda _: bytes(64 << 20))


def too_slow(edge, _):
    """It is sound; the workers of this test (`hurried`) never come to its end."""
    return edge


def writes_outside(edge, out):
    return repacked(edge, out, script=lambda raw: raw.replace(b"nn/new", b"../new"))


BREAKS = {
    "flip in the head": flipped(0.0),
    "flip in the middle": flipped(0.5),
    "flip at the end": flipped(1.0),
    "cut": cut,
    "longer": longer,
    "wrong length": wrong_length,
    "wrong mode": told_other(entries(t=wrong_mode)),
    "wrong link": told_other(entries(l=lambda e: Link(e.path, "code"))),
    "a file too few": told_other(lambda files: files[:-1]),
    "hostile size": hostile_size,
    "too much memory": too_much_memory,
    "too much memory at once": bomb,
    "too slow": too_slow,
    "needs a codec that the oldest client lacks": unknown_codec,
    "another codec": other_codec,
    "writes outside": writes_outside,
    "between other trees": other_trees,
}
"""Ways to break `build_delta`. Each of these is between the same two releases; the two
where only one kind of loops is wrong stand below."""


def broken(way):
    """Return what makes deltas, broken in this way."""
    if way.startswith(("wrong mode", "wrong link", "a file")):
        return BREAKS[way]

    def make(before, old_files, root, files, out, **more):
        edge = delta_bundle.build_delta(before, old_files, root, files, out, **more)
        return BREAKS[way](edge, out)

    return make


def hurried():
    """Return workers that take for ever, of a second of CPU: a minute is too long."""
    start = "import updaterd.artifact.worker.child as child;"
    endless = (
        f"{start} make = child.make; child.make = lambda job, *more: "
        "all(n == 0 for n in iter(int, 1)) if job.kind == 'delta' "
        "else make(job, *more);"
    )
    return {
        loop: [
            *("/bin/sh", "-c", 'ulimit -t 1; exec "$@"', "sh"),
            *(word.replace(start, endless) for word in argv),
        ]
        for loop, argv in proof.commands().items()
    }


@pytest.mark.parametrize("way", BREAKS)
def test_delta_that_is_broken_in_the_making_is_not_signed(
    tmp_path, publisher, old, way
):
    """The push goes on without it, and names it; nothing of it is left in scratch."""
    built = push(
        tmp_path,
        publisher.space,
        old,
        broken(way),
        workers=hurried() if way == "too slow" else None,
    )

    assert () == built.deltas
    (said,) = built.skipped
    assert "1.0: the delta from 1.0 was applied and does not make" in said
    assert not list(publisher.space.work.iterdir())
    signed = entered(publisher, built)
    assert () == signed.deltas
    assert way != "too slow" or "killed" in said
    assert way != "too much memory" or "asks for" in said
    assert built.full == signed.full


def entered(publisher, built):
    """Sign what was built; return its manifest, as machines get it."""
    repository = publisher.open()
    catalog = publish.catalog_of(publisher.space, repository, "acme")
    order = publish.Order(product="acme", version="2.0", platform=PLATFORM)
    publish.enter(catalog, order, built)
    repository.commit()
    again = publish.catalog_of(publisher.space, publisher.open(), "acme")
    return again.manifest(again.require("2.0"))


def test_strict_push_stops_at_a_delta_that_is_not_proven(tmp_path, space, old):
    def make(before, old_files, root, files, out, **more):
        edge = delta_bundle.build_delta(before, old_files, root, files, out, **more)
        return cut(edge, out)

    with pytest.raises(RejectedError) as error:
        push(tmp_path, space, old, make, strict=True)
    assert "not_proven" == error.value.code


def test_sound_delta_is_proven_and_signed(tmp_path, space, old):
    (edge,) = push(tmp_path, space, old, delta_bundle.build_delta, strict=True).deltas
    assert "1.0" == edge.from_version


@pytest.mark.parametrize("which", ["compiled", "interpreted"])
def test_delta_that_one_kind_of_machine_cannot_apply_is_not_signed(
    tmp_path, space, old, which
):
    """The compiled loops, or those in Python, are wrong; the others are right."""
    if which == "compiled":
        pytest.importorskip("updaterd.artifact._native", exc_type=ImportError)
    workers = proof.commands()
    name = "the compiled loops" if which == "compiled" else "the loops in Python"
    argv = [*workers[name]]
    place = argv.index("-c") + 1
    hidden, start = argv[place].rsplit("import updaterd.artifact.worker.child", 1)
    loops = "".join(BROKEN_LOOPS.format(which, name) for name in ("Sparse", "Dense"))
    argv[place] = f"{hidden}{loops}import updaterd.artifact.worker.child{start}"

    built = push(
        tmp_path,
        space,
        old,
        delta_bundle.build_delta,
        workers={**workers, name: argv},
    )

    assert () == built.deltas
    (said,) = built.skipped
    assert (
        "the delta from 1.0 was applied and does not make the release: "
        f"with {name}" in said
    )


def test_codec_that_came_after_the_oldest_admitted_updater_is_not_proven(
    tmp_path, space, old
):
    """What this updaterd reads says nothing about the one that `min_updater` names."""
    (edge,) = push(tmp_path, space, old, delta_bundle.build_delta).deltas
    files = grow(tmp_path / "2.0", {})
    ends = space.blob(edge.sha256), edge, tmp_path / "1.0", old.files, files
    kinds = {**KINDS, DELTA: "0.9"}
    proof.Prover(tmp_path, min_updater="0.9", kinds=kinds).delta(*ends)

    with pytest.raises(RejectedError) as error:
        proof.Prover(tmp_path, min_updater="0.8", kinds=kinds).delta(*ends)

    assert "updaterd 0.8 cannot read" in error.value.cause


def test_worker_that_ends_without_an_answer_proves_nothing(tmp_path, space, old):
    """Whoever's fault it is: what was not seen to work is not signed."""
    (edge,) = push(tmp_path, space, old, delta_bundle.build_delta).deltas
    files = grow(tmp_path / "2.0", {})
    argv = [*parent.command()]
    place = argv.index("-c") + 1
    argv[place] = argv[place].replace(
        "import updaterd.artifact.worker.child as child;",
        "import updaterd.artifact.worker.child as child, os; "
        "child.make = lambda *_: os._exit(3);",
    )
    prover = proof.Prover(tmp_path, min_updater="0.1.0", workers={"it": argv})

    with pytest.raises(RejectedError) as error:
        prover.delta(space.blob(edge.sha256), edge, tmp_path / "1.0", old.files, files)

    assert "not_proven" == error.value.code
    assert "no_answer" == error.value.__cause__.code


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


@pytest.fixture
def jars(tmp_path, space):
    """Two releases of archives, the first one published."""
    files = grow(tmp_path / "1.0", release(changed=0))
    built = build.build(space, tmp_path / "1.0", files, version="1.0", previous=())
    grow(tmp_path / "2.0", release(changed=1))
    return manifest_of("acme", "1.0", 1, files=files, full=built.full)


def test_what_looks_into_archives_is_offered_beside_the_plain_delta(
    tmp_path, space, jars
):
    """To those who can read it; the oldest updaterd and other zlibs lose nothing."""
    built = push(tmp_path, space, jars, delta_bundle.build_delta, min_updater="0.1.0")

    plain, inflated = built.deltas
    assert plain.codec in codecs_since("0.1.0")
    assert inflated.codec.startswith("delta3")
    assert inflated.codec not in codecs_since("0.1.0")
    assert inflated.length < plain.length / 2
    assert not built.skipped
    manifest = manifest_of(
        "acme", "2.0", 2, files=built.files, full=built.full, deltas=built.deltas
    )
    have = {"1.0": jars.tree}
    routes = {
        offered: choose_route(manifest, have=have, codecs=codecs)
        for offered, codecs in (("all", CODECS), ("old", codecs_since("0.1.0")))
    }
    assert routes["all"].steps == (inflated,)
    assert routes["old"].steps == (plain,)


def test_what_looks_into_archives_is_proven_too(tmp_path, space, jars):
    """One that makes something else is left out, and the plain one stays."""

    def make_inflated(*given, **more):
        edge = delta_bundle.build_inflated(*given, **more)
        return flipped(0.9)(edge, given[4])

    built = push(
        tmp_path,
        space,
        jars,
        delta_bundle.build_delta,
        make_inflated=make_inflated,
    )

    assert len(built.deltas) == 1
    assert built.deltas[0].codec.startswith("delta1")
    (why,) = built.skipped
    assert why.startswith("1.0, inflated: ")


def test_a_deep_look_at_what_was_published_takes_it_for_sound(tmp_path):
    """Also when the oldest updaterd that may come cannot read one of two deltas."""
    publisher, earlier = Publisher(tmp_path / "ops"), []
    for seq, version in enumerate(("1.0", "2.0"), 1):
        files = grow(tmp_path / version, release(changed=seq - 1))
        built = build.build(
            publisher.space,
            tmp_path / version,
            files,
            version=version,
            previous=earlier,
        )
        earlier.append(
            publisher.release(
                version, files=files, full=built.full, deltas=built.deltas, seq=seq
            )
        )

    assert len(built.deltas) == 2
    assert not verification.verify(publisher.space, publisher.open(), deep=True)
