# SPDX-License-Identifier: Apache-2.0
"""Whatever lies in archives, and whatever happened to them: the very bytes, or none."""

import io
import zipfile
import zlib

import pytest
from fakes.archives import release, text, zipped
from fakes.bundles import delta_job, grow, make_delta, perform
from fakes.uncompiled import use

from updaterd.artifact.verify import verify_tree
from updaterd.core.frozen import replaced
from updaterd.release import tree
from updaterd.release.bundles import delta as delta_bundle


def inflated(base):
    """Make BASE/delta from BASE/old to BASE/new, looking into archives."""
    return delta_bundle.build_inflated(
        base / "old",
        tree.scan(base / "old"),
        base / "new",
        tree.scan(base / "new"),
        base / "delta",
        from_version="1",
        to_version="2",
    )


def job_of(base, edge, **changes):
    old, new = grow(base / "old", {}), grow(base / "new", {})
    return delta_job(base, base / "delta", old, new, codec=edge.codec, **changes)


@pytest.fixture
def both(tmp_path):
    grow(tmp_path / "old", release(changed=0))
    grow(tmp_path / "new", release(changed=1))
    return tmp_path


@pytest.mark.parametrize("loops", ["compiled", "interpreted"])
def test_archives_of_every_kind_are_made_anew_and_cost_what_changed_in_them(
    both, monkeypatch, loops
):
    use(loops, monkeypatch)
    plain = make_delta(both).length
    edge = inflated(both)
    job = job_of(both, edge)

    report = perform(job)

    assert not verify_tree(job.destination, job.files)
    assert not report.missing
    assert edge.codec.startswith("delta3")
    assert edge.length < plain / 4


def test_the_same_trees_make_the_same_bundle(both):
    assert inflated(both).sha256 == inflated(both).sha256


def test_a_step_of_a_path_whose_listing_is_not_signed_makes_its_tree(both):
    job = replaced(job_of(both, inflated(both)), files=None)

    report = perform(job)

    assert report.files == grow(both / "new", {})


@pytest.mark.parametrize("damage", [b"", b"not an archive", "cut", "flipped", "more"])
def test_a_damaged_old_archive_is_named_and_spoils_nothing_else(both, damage):
    """What was made of it is missing; all other files are right."""
    edge = inflated(both)
    job = job_of(both, edge)
    path = both / "old/a.jar"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x55
    new = {"cut": whole[:-9], "flipped": bytes(flipped), "more": whole + b"more"}
    path.write_bytes(new.get(damage, damage))

    report = perform(job)

    assert report.bad_old_files == ("a.jar",)
    assert "a.jar" in report.missing
    assert "other.zip" not in report.missing
    left = [f for f in job.files if f.path not in report.missing]
    assert not [f for f in verify_tree(job.destination, job.files) if f in left]


def test_what_is_there_already_is_not_made_again(both):
    """Also where a later file is made of what is in it, inflated."""
    for name, changed in (("old", 0), ("new", 1)):
        same = {f"{n}.txt": text(n, 40_000) for n in range(3)}
        if changed:
            same["9.txt"] = text(99, 150_000)
        for number, jar in enumerate(("m1.jar", "m2.jar")):
            grow(both / name, {jar: zipped(same, stamp=4 * changed + 2 * number)})
    edge = inflated(both)
    job = job_of(both, edge)
    for path in ("m1.jar", "c.png"):
        (job.destination / path).write_bytes((both / "new" / path).read_bytes())
    done = replaced(job, done=frozenset({"m1.jar", "c.png"}))

    perform(done)

    assert not verify_tree(job.destination, job.files)


def test_a_stream_that_another_encoder_made_stays_as_it_is(tmp_path):
    """No level of zlib makes stored blocks of such data, nor this many of them."""
    data = text(1)
    odd = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = b"".join(
        odd.compress(data[at : at + 99]) + odd.flush(zlib.Z_FULL_FLUSH)
        for at in range(0, len(data), 99)
    )
    packed += odd.flush()
    raw = b"\x1f\x8b\x08" + bytes(6) + b"\xff" + packed + bytes(8)
    grow(tmp_path / "old", {"a.gz": raw[:-8] + b"8 others"})
    grow(tmp_path / "new", {"a.gz": raw})

    assert inflated(tmp_path) is None


def test_trees_without_archives_have_no_such_delta(tmp_path):
    grow(tmp_path / "old", {"a": text(1), "b": b""})
    grow(tmp_path / "new", {"a": text(2), "b": b""})

    assert inflated(tmp_path) is None


def test_a_program_in_an_archive_is_re_aimed_as_a_file_of_its_own(tmp_path):
    pytest.importorskip("updaterd.artifact._native", exc_type=ImportError)
    from fakes.compiled import build, source

    for name, inserted in (("old", ()), ("new", (5,))):
        (tmp_path / name).mkdir()
        build(tmp_path / name / "program", source(400, inserted), "pie")
        data = (tmp_path / name / "program").read_bytes()
        for path in (tmp_path / name).iterdir():
            path.unlink()
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(zipfile.ZipInfo("lib/x.so"), data, zipfile.ZIP_DEFLATED)
        grow(tmp_path / name, {"p.whl": out.getvalue()})
    edge = inflated(tmp_path)
    job = job_of(tmp_path, edge)

    perform(job)

    from updaterd.artifact import container

    with (tmp_path / "delta").open("rb") as file:
        table = container.read(file.fileno(), container.DELTA, length=edge.length)
    assert table[5].raw  # there is an image
    assert not verify_tree(job.destination, job.files)
