# SPDX-License-Identifier: Apache-2.0
"""A delta makes the new tree, byte for byte, whatever the two trees are."""

import os
import random
import resource
import shutil
import tempfile
from array import array
from contextlib import closing
from pathlib import Path

import pytest
from fakes.bundles import delta_job, grow, make_delta, perform, run
from fakes.uncompiled import BOTH, use
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from updaterd.artifact import patch
from updaterd.artifact.apply import loops
from updaterd.artifact.destination import Destination
from updaterd.artifact.verify import verify_tree
from updaterd.artifact.worker import completion
from updaterd.core.manifest import File, tree_id
from updaterd.errors import RejectedError
from updaterd.release import tree
from updaterd.release.bundles import matching

pytestmark = pytest.mark.slow

NAMES = st.sampled_from(["a", "b+x", "c", "d/e", "d/f+x", "d/g/h", "i", "j", "k/l"])
BLOCKS = st.sampled_from([b"", b"x", b"\0" * 700, b"abc" * 200, bytes(range(256)) * 3])
EDITS = st.tuples(BLOCKS, st.integers(0, 40), st.binary(max_size=30))


def _content(parts) -> bytes:
    out = bytearray()
    for block, flip, tail in parts:
        piece = bytearray(block + tail)
        if piece and flip:
            piece[flip % len(piece)] ^= flip
        out += piece
    return bytes(out)


FILES = st.lists(EDITS, max_size=4).map(_content)
LINKS = st.sampled_from(["a", "./b", "d", "nowhere"])
TREES = st.dictionaries(NAMES, FILES, max_size=6)


def _tree(base: Path, name: str, files, link: str | None):
    content = dict(files)
    if link is not None:
        content["z-link"] = link
    return grow(base / name, content)


@pytest.mark.slow
@settings(
    suppress_health_check=[HealthCheck.too_slow],
)
@pytest.mark.parametrize("which", BOTH)
@given(
    old=TREES,
    new=TREES,
    old_link=st.none() | LINKS,
    new_link=st.none() | LINKS,
)
def test_any_tree_becomes_any_other(which, old, new, old_link, new_link):
    """Contents, modes, links, renames, duplicates and empty files all arrive."""
    base = Path(tempfile.mkdtemp())
    patched = pytest.MonkeyPatch()
    try:
        use(which, patched)
        before = _tree(base, "old", old, old_link)
        after = _tree(base, "new", new, new_link)
        make_delta(base)

        job = delta_job(base, base / "delta", before, after)
        report = perform(job)

        assert not verify_tree(job.destination, after)
        assert not report.missing

        middle = delta_job(base, base / "delta", before, after, files=None)
        assert after == perform(middle).files
    finally:
        patched.undo()
        shutil.rmtree(base)


@pytest.fixture
def program(tmp_path):
    """Two releases of a tree with long files that share changes."""
    draw = random.Random(5)
    code = bytearray(draw.randbytes(1_500_000))
    other = bytearray(code[:1_300_000] + draw.randbytes(10_000))
    text = b"".join(b"line %d of the text\n" % n for n in range(2000))
    grow(tmp_path / "old", {"bin/a+x": code, "bin/b+x": other, "t.txt": text, "e": b""})
    for at in range(1000, 1_200_000, 5000):
        code[at] = (code[at] + 3) % 256
        other[at] = code[at]
    code[700_000:700_000] = other[700_000:700_000] = draw.randbytes(3000)
    grow(
        tmp_path / "new",
        {"bin/a+x": code, "bin/b+x": other, "u.txt": text[:-9], "e": b"", "s": "e"},
    )
    return tmp_path


def _scan(base):
    return grow(base / "old", {}), grow(base / "new", {})


@pytest.mark.slow
@pytest.mark.parametrize("budget", [1 << 30, 1])
@pytest.mark.parametrize("matcher", ["hdiffpatch", "bsdiff4"])
def test_long_files_in_the_worker(program, budget, matcher, monkeypatch):
    """Split or whole, by either matcher: the worker makes the signed tree."""
    if matcher == "bsdiff4":
        monkeypatch.setattr(matching, "_hdiffpatch", lambda: None)
    else:
        pytest.importorskip("hdiffpatch")
    delta = make_delta(program, budget=budget)
    before, after = _scan(program)

    job = delta_job(program, program / "delta", before, after)
    seen = []
    report = run(job, on_progress=lambda done, total: seen.append((done, total)))

    assert not verify_tree(job.destination, after)
    assert delta.length < 60_000
    assert report.peak_rss < 48 * 2**20
    assert seen[-1][0] == seen[-1][1] == report.bytes_written


@pytest.mark.parametrize("which", BOTH)
def test_memory_of_long_files_is_given_back(tmp_path, which, monkeypatch):
    """Ranges from all over a file of 64 MiB never keep much of it in memory."""
    grow(tmp_path / "old", {"x": b""})
    long = tmp_path / "old" / "x"
    piece = random.Random(4).randbytes(1 << 20)
    with long.open("wb") as file:
        for number in range(64):
            file.write(bytes([number]) + piece[1:])
    starts = [at * 65_521 % (63 << 20) for at in range(4000)]
    use(which, monkeypatch)
    old = loops.best().Concatenation(
        tmp_path / "old", tree.scan(tmp_path / "old"), tmp_path / "old"
    )
    before = resident()

    ends = array("q", [start + 9 for start in starts])
    made = old.gather(array("q", starts), ends)
    after = resident()
    old.close()

    data = long.read_bytes()
    assert made == b"".join(data[start : start + 9] for start in starts)
    assert after < max(before, 40 << 20) + (33 << 20)


def resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


@pytest.mark.slow
def test_the_same_trees_make_the_same_bundle(program):
    """Reproducible byte for byte: anyone can check what was signed."""
    first = make_delta(program)
    data = (program / "delta").read_bytes()

    assert first == make_delta(program)
    assert data == (program / "delta").read_bytes()


@pytest.mark.parametrize("how", ["reflink", "hardlink", "copy"])
def test_unchanged_files_are_taken_over(tmp_path, how):
    """However they are taken over, they have the listed bytes and mode."""
    before = grow(
        tmp_path / "old", {"same": b"s" * 5000, "moved": b"m" * 99, "x": b"1"}
    )
    after = grow(tmp_path / "new", {"same": b"s" * 5000, "to/+x": b"m" * 99, "x": b"2"})
    make_delta(tmp_path)

    job = delta_job(tmp_path, tmp_path / "delta", before, after, unchanged=how)
    report = perform(job)

    assert not verify_tree(job.destination, after)
    assert 2 == report.files_shared
    if how == "copy":
        assert 1 == (job.destination / "same").stat().st_nlink


DAMAGE = {
    "tampered": lambda path: path.write_bytes(b"?" + path.read_bytes()[1:]),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "missing": lambda path: path.unlink(),
    "a link": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "a pipe": lambda path: (path.unlink(), __import__("os").mkfifo(path)),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("bad", "lost", "size", "how"),
    [
        ("code", {"code"}, 50_000, "reflink"),
        ("code", {"code"}, 1_200_000, "reflink"),  # long files are read otherwise
        ("same", {"same"}, 50_000, "reflink"),
        ("same", {"same"}, 50_000, "hardlink"),
    ],
)
def test_a_bad_old_file_costs_only_what_depends_on_it(
    tmp_path, damage, bad, lost, size, how
):
    """It is noticed and named; everything else still comes from the delta."""
    draw = random.Random(3)
    code, other, same = (draw.randbytes(size) for _ in range(3))
    before = grow(tmp_path / "old", {"code": code, "other": other, "same": same})
    after = grow(
        tmp_path / "new",
        {"code": code[:999] + b"1" + code[999:], "other": other + b"2", "same": same},
    )
    make_delta(tmp_path)
    DAMAGE[damage](tmp_path / "old" / bad)

    job = delta_job(tmp_path, tmp_path / "delta", before, after, unchanged=how)
    report = perform(job)

    assert (bad,) == report.bad_old_files
    assert lost == set(report.missing)
    problems = verify_tree(job.destination, after)
    assert lost == {problem.path for problem in problems}
    with pytest.raises(RejectedError) as caught:
        perform(delta_job(tmp_path, tmp_path / "delta", before, after, files=None))
    assert "bad_old_files" == caught.value.code


@pytest.mark.parametrize(
    ("which", "size"), [*((which, 600_000) for which in BOTH), ("compiled", 3_000_000)]
)
def test_an_old_file_that_is_installed_again_meanwhile(
    tmp_path, which, size, monkeypatch
):
    """It is cut short while it is read, and whole when it is looked at: it is blamed.

    The delta is not. (In Python a long file is mapped, and its cut ends the worker.)
    """
    use(which, monkeypatch)
    old = random.Random(9).randbytes(size)
    before = grow(tmp_path / "old", {"a": old})
    after = grow(tmp_path / "new", {"a": old[: size // 2] + b"new" + old[size // 2 :]})
    make_delta(tmp_path)
    job = delta_job(tmp_path, tmp_path / "delta", before, after)

    def meanwhile(done, total):
        if done == total:
            (tmp_path / "old" / "a").write_bytes(old)
        elif done:
            os.truncate(tmp_path / "old" / "a", 0)

    fd = os.open(job.bundle, os.O_RDONLY)
    try:
        made = patch.apply(job, fd, meanwhile)
        with closing(Destination(job.destination)) as destination:
            report = completion.complete(job, made, destination)
    finally:
        os.close(fd)
    assert ("a",) == report.bad_old_files == report.missing
    assert not list(job.destination.iterdir())


def test_a_delta_for_another_tree_is_refused_before_anything_is_written(tmp_path):
    """The listing it starts from, or makes, is not the one it was made for."""
    before = grow(tmp_path / "old", {"a": b"1" * 100, "b": b"2"})
    after = grow(tmp_path / "new", {"a": b"1" * 101, "b": b"2"})
    make_delta(tmp_path)
    for old, new in (
        (before[:1], after),
        (before, before),
        (before, after[:1]),
        (before, (File("a", "0" * 64, 102, 0o644), after[1])),
    ):
        job = delta_job(tmp_path, tmp_path / "delta", old, new)
        with pytest.raises(RejectedError):
            perform(job)
        assert not list(job.destination.iterdir())


def test_a_wrong_signed_hash_is_refused(tmp_path):
    """Old files are sound, so the delta is to blame."""
    before = grow(tmp_path / "old", {"a": b"1" * 100})
    after = grow(tmp_path / "new", {"a": b"1" * 101})
    make_delta(tmp_path)
    lie = (File("a", "0" * 64, 101, 0o644),)

    with pytest.raises(RejectedError) as caught:
        perform(delta_job(tmp_path, tmp_path / "delta", before, lie))

    assert "bad_output" == caught.value.code
    assert tree_id(lie) != tree_id(after)
