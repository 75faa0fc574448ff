# SPDX-License-Identifier: Apache-2.0
"""Short deltas whose new bytes are packed with the old files at hand."""

import hashlib
import random

import pytest
from fakes.bundles import assemble, delta_job, grow, make_delta, perform
from fakes.uncompiled import BOTH, use

from updaterd.artifact import container, script
from updaterd.artifact.apply import operations
from updaterd.artifact.codecs import MAX_PREFIX, STORED, ZSTD
from updaterd.artifact.script import MADE, Item
from updaterd.artifact.verify import verify_tree
from updaterd.core.bundle_kinds import PRIMED
from updaterd.core.frozen import replaced
from updaterd.core.routes import codecs_since
from updaterd.errors import MalformedError, RejectedError
from updaterd.release.bundles import inspection
from updaterd.release.bundles.delta import build_primed
from updaterd.release.bundles.packing import compress

WORDS = [
    "".join(random.Random(n).choices("etaoinshrdlu", k=2 + n % 9)) for n in range(900)
]


def prose(seed: int, count: int) -> bytes:
    draw = random.Random(seed)
    lines = [" ".join(draw.choices(WORDS, k=9)) for _ in range(count)]
    return "\n".join(lines).encode()


OLD = {f"docs/{n}.md": prose(n, 60) for n in range(8)}
NEW = {
    **OLD,
    # sentences of the old text, cut and put together anew
    "docs/2.md": OLD["docs/2.md"][:900] + prose(50, 25) + OLD["docs/5.md"][300:1200],
    "docs/9.md": prose(51, 30) + OLD["docs/1.md"][50:90],
    "bin/run+x": b"#!/bin/sh\n" + prose(52, 3),
}
NEW = {name: data for name, data in NEW.items() if name != "docs/7.md"}


def made(base, old, new):
    return build_primed(
        base / "old", old, base / "new", new, base / "primed",
        from_version="1", to_version="2",
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    base = tmp_path_factory.mktemp("primed")
    old, new = grow(base / "old", OLD), grow(base / "new", NEW)
    plain = make_delta(base)
    return base, old, new, plain, made(base, old, new)


def job_of(bundle, **changes):
    base, old, new, _, delta = bundle
    return delta_job(base, base / "primed", old, new, codec=delta.codec, **changes)


@pytest.mark.parametrize("loops", BOTH)
def test_it_makes_its_tree(bundle, monkeypatch, loops):
    use(loops, monkeypatch)
    job = job_of(bundle)
    report = perform(job)
    assert () == report.missing
    assert () == verify_tree(job.destination, bundle[2])


def test_text_is_smaller_than_by_operations_alone_and_than_by_zstd_alone(bundle):
    base, _, _, plain, delta = bundle
    assert delta.codec.startswith(PRIMED)
    assert delta.length < 0.95 * plain.length
    both = (
        b"".join(path.read_bytes() for path in sorted((base / name).rglob("*.md")))
        for name in ("old", "new")
    )
    before, after = both
    assert delta.length < len(compress.primed(after, before)) + 200  # names, modes


def test_what_is_no_text_is_not_tried(tmp_path):
    """It costs more to try than all the rest of a push, and gains nothing."""
    old = grow(tmp_path / "old", {"x": random.Random(1).randbytes(200_000)})
    new = grow(tmp_path / "new", {"x": random.Random(2).randbytes(200_000), **NEW})
    assert made(tmp_path, old, new) is None
    (tmp_path / "new/x").write_bytes(prose(3, 4000))
    assert made(tmp_path, old, grow(tmp_path / "new", {})) is not None


def test_an_older_updaterd_is_not_offered_it(bundle):
    delta = bundle[-1]
    assert delta.codec not in codecs_since("0.2.0")
    assert delta.codec in codecs_since("0.3.0")


def test_a_bundle_by_itself_says_what_it_takes_to_read_it(bundle):
    """Nothing in it says so: its frame alone cannot be decoded."""
    base, *_, plain, delta = bundle
    assert inspection.inspect(base / "primed").codec == delta.codec
    assert inspection.inspect(base / "delta").codec == plain.codec


def test_the_same_trees_make_the_same_bytes(bundle):
    base, old, new, _, delta = bundle
    assert delta == made(base, old, new)


def test_a_damaged_old_file_is_named_and_nothing_else_is_lost(bundle):
    """The frame is read to its end whatever comes before it."""
    base, *_ = bundle
    path = base / "old/docs/2.md"
    good = path.read_bytes()
    try:
        path.write_bytes(good.replace(b"e", b"a"))
        report = perform(job_of(bundle))
    finally:
        path.write_bytes(good)
    assert ("docs/2.md",) == report.bad_old_files
    assert report.missing


def test_a_changed_bundle_makes_the_signed_tree_or_none(bundle, tmp_path):
    base, _, new, *_ = bundle
    whole = (base / "primed").read_bytes()
    draw = random.Random(4)
    for number in range(60):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path = tmp_path / str(number)
        path.write_bytes(data)
        job = replaced(
            job_of(bundle),
            bundle=path,
            bundle_sha256=hashlib.sha256(data).hexdigest(),
        )
        try:
            report = perform(job)
        except RejectedError:
            continue
        assert report.missing or not verify_tree(job.destination, new)


def test_a_prefix_beyond_the_limit_is_refused(tmp_path):
    """Nothing of it is read: a plain delta of long files that says it is primed."""
    data = random.Random(1).randbytes(MAX_PREFIX + 1)
    old = grow(tmp_path / "old", {"long": data})
    new = grow(tmp_path / "new", {"long": data[:-9] + b"otherwise"})
    plain = make_delta(tmp_path)
    job = delta_job(tmp_path, tmp_path / "delta", old, new)
    perform(job)
    with pytest.raises(RejectedError, match="prefix"):
        perform(
            delta_job(
                tmp_path,
                tmp_path / "delta",
                old,
                new,
                codec=plain.codec.replace("delta1", PRIMED),
            )
        )
    assert made(tmp_path, old, new) is None


@pytest.mark.parametrize("size", [1, 7])
def test_a_prefix_too_short_for_zstd_is_refused(tmp_path, size):
    """As malformed: it is the bundle's fault, and no defect of the reader."""
    old = grow(tmp_path / "old", {"long": b"x" * size})
    new = grow(tmp_path / "new", {"long": prose(1, 9)})
    data = (tmp_path / "new/long").read_bytes()
    streams = [
        script.encode(old, [Item("long", MADE, 0o644, len(data))], [0], [], set()),
        b"".join(operations.encode([(0, len(data), 0)])),
        b"",
        b"",
    ]
    packed = compress.zstandard(data)
    bundle = assemble(
        container.DELTA,
        *((STORED, len(raw), raw) for raw in streams),
        (ZSTD, len(data), packed),
    )
    (tmp_path / "delta").write_bytes(bundle)
    perform(delta_job(tmp_path, tmp_path / "delta", old, new))
    with pytest.raises(MalformedError, match="prefix"):
        perform(
            delta_job(tmp_path, tmp_path / "delta", old, new, codec=f"{PRIMED}+zstd")
        )


@pytest.mark.parametrize("content", [b"", b"x" * 9])
def test_there_is_none_where_there_is_nothing_before_it(tmp_path, content):
    old = grow(tmp_path / "old", {"a": content})
    new = grow(tmp_path / "new", {"a": prose(1, 9)})
    assert made(tmp_path, old, new) is None
