# SPDX-License-Identifier: Apache-2.0
"""Deltas of programs: small, the same everywhere, and applied by every machine."""

import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import compiled
from fakes.bundles import delta_job, grow, make_delta, run
from fakes.tools import need

import updaterd
from updaterd.artifact import codecs, container
from updaterd.artifact.programs import stream as images
from updaterd.core.manifest import File, tree_id
from updaterd.release import tree
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles import making
from updaterd.release.bundles.packing import exchange
from updaterd.release.bundles.pool import Pool
from updaterd.release.bundles.programs import matching

COUNT = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(matching.compiled() is None, reason="needs the compiled module"),
]


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Two versions of programs: by kind, the old and the new one."""
    need("gcc")
    base = tmp_path_factory.mktemp("programs")
    old, new = compiled.source(COUNT), compiled.source(COUNT, (30, 75))
    return {
        kind: tuple(
            compiled.build(base / f"{kind}{number}", text, kind)
            for number, text in enumerate((old, new))
        )
        for kind in compiled.KINDS
    }


@pytest.fixture(scope="session")
def interpreted(tmp_path_factory):
    """The root of an installation that has no compiled module."""
    root = tmp_path_factory.mktemp("interpreted")
    source = Path(updaterd.__file__).parent
    ignored = shutil.ignore_patterns("_native*", "__pycache__")
    shutil.copytree(source, root / "updaterd", ignore=ignored)
    return root


def trees(base, old, new):
    """Return the listings of BASE/old and BASE/new, made of these files."""
    return grow(base / "old", old), grow(base / "new", new)


def applied(base, delta, old, new, start=run):
    """Check that a worker makes the new tree with this delta."""
    job = delta_job(base, base / "delta", old, new, codec=delta.codec)
    assert start(job).missing == ()
    assert tree_id(tree.scan(Path(job.destination))) == tree_id(new)


def plain_length(base, old, new):
    """Return the length of the delta of files that do not begin as programs do."""
    trees(base, *({name: b"x" + f for name, f in side.items()} for side in (old, new)))
    delta = make_delta(base)
    assert delta.codec.startswith("delta1")
    return delta.length


@pytest.mark.parametrize("kind", compiled.KINDS)
def test_a_program_with_a_new_function_is_remade_from_a_small_delta(
    tmp_path, programs, kind
):
    """Position-independent, fixed, or a library: a fraction of a plain delta."""
    before, after = ({"app+x": one} for one in programs[kind])
    old, new = trees(tmp_path, before, after)
    delta = make_delta(tmp_path)

    assert delta.codec.startswith("delta2")
    plain = plain_length(tmp_path / "plain", before, after)
    assert delta.length < (0.5 if kind == "library" else 0.2) * plain
    applied(tmp_path, delta, old, new)


def _elsewhere(root, code, argument):
    """Run code in another installation; return what it pickles."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(root)!r})\n{code}",
        ],
        input=pickle.dumps(argument),
        stdout=subprocess.PIPE,
        check=True,
    )
    return pickle.loads(done.stdout)  # noqa: S301  our own, just made


def test_a_machine_without_the_compiled_module_makes_the_same(
    tmp_path, programs, interpreted
):
    """What the publisher finds in C, the worker finds in Python, to the byte."""
    before, after = zip(*(programs[kind] for kind in compiled.KINDS), strict=True)
    old, new = trees(
        tmp_path,
        dict(zip("abc", before, strict=True)),
        dict(zip("abc", after, strict=True)),
    )
    delta = make_delta(tmp_path)

    def start(job):
        code = (
            "import pickle; from updaterd.artifact.programs import projection\n"
            "from updaterd.artifact.worker import parent\n"
            "assert projection.implementation().__name__.endswith('projector')\n"
            "report = parent.run(pickle.load(sys.stdin.buffer))\n"
            "sys.stdout.buffer.write(pickle.dumps(report))"
        )
        return _elsewhere(interpreted, code, job)

    assert delta.codec.startswith("delta2")
    applied(tmp_path, delta, old, new, start)


def test_a_publisher_without_the_compiled_module_makes_plain_deltas(
    tmp_path, programs, interpreted
):
    """Larger, but a delta; whoever pushes is told, and only about programs."""
    before, after = programs["pie"]
    old, new = trees(tmp_path, {"app+x": before}, {"app+x": after})
    arguments = [
        (tmp_path / side, grown) for side, grown in (("old", old), ("new", new))
    ]
    code = (
        "import pathlib, pickle; from updaterd.release import build\n"
        "from updaterd.release.bundles import delta\n"
        "(a, b), (c, d) = pickle.load(sys.stdin.buffer)\n"
        "made = delta.build_delta(a, b, c, d, a.parent / 'delta',"
        " from_version='1', to_version='2')\n"
        "notes = build._notes(c, d), build._notes(c, ())\n"
        "sys.stdout.buffer.write(pickle.dumps((made, notes)))"
    )
    delta, (told, untold) = _elsewhere(interpreted, code, arguments)

    assert delta.codec.startswith("delta1")
    applied(tmp_path, delta, old, new)
    assert "compiled module" in told[0]
    assert untold == ()


def _stream(base: Path, number: int = 5) -> bytes:
    """Return a stream of BASE/delta, that with the images or another."""
    with (base / "delta").open("rb") as file:
        fd = file.fileno()
        table = container.read(
            fd, container.DELTA, length=(base / "delta").stat().st_size
        )
        return codecs.read_whole(fd, table[number], "it", limit=images.MAX_BYTES)


def test_programs_that_share_code_share_their_changes(tmp_path, programs):
    """A second program is made from the first new one, which is described in full."""
    tail = random.Random(1).randbytes(1 << 20)
    before, after = programs["pie"]
    other = compiled.build(
        tmp_path / "other", compiled.source(COUNT, (30, 50, 75)), "pie"
    )
    made = {"before them": bytes(3 << 20), "one+x": after + tail, "two+x": other + tail}
    old, new = trees(tmp_path, {"one+x": before + tail}, made)
    delta = make_delta(tmp_path)
    lengths = [e.length for e in (*old, *new) if isinstance(e, File)]
    found = images.decode(_stream(tmp_path), lengths, lambda *rows: rows)

    assert delta.codec.startswith("delta2")
    assert delta.length < 4000
    # the old program, the first new one (read again) with regions, the second without
    assert sorted(len(regions) > 0 for _, regions, _ in found.values()) == [
        False,
        True,
        True,
    ]
    applied(tmp_path, delta, old, new)


@pytest.fixture
def mixed(tmp_path, programs):
    """A tree of programs and texts, old and new."""
    draw = random.Random(4)
    lines = [f"line {draw.randrange(10**6)}\n" for _ in range(3000)]
    before = {f"text{n}": "".join(lines[n * 500 :]).encode() for n in range(5)}
    after = {name: text.replace(b"7", b"77") for name, text in before.items()}
    for kind, (old, new) in programs.items():
        before[f"bin/{kind}+x"], after[f"bin/{kind}+x"] = old, new
    after["bin/pie again+x"] = programs["pie"][1] + b"signature"
    after["new"] = b"nothing like it"
    return before, after


def test_programs_and_texts_lie_in_one_delta(tmp_path, mixed):
    """Short files are matched together, and each program with all old ones."""
    old, new = trees(tmp_path, *mixed)
    delta = make_delta(tmp_path)

    assert delta.codec.startswith("delta2")
    applied(tmp_path, delta, old, new)
    assert delta.length < 0.6 * plain_length(tmp_path / "plain", *mixed)


def test_no_copy_goes_from_a_program_into_the_file_after_it(tmp_path, programs):
    """Readers refuse it, although the old bytes of both lay one after the other."""
    before, after = programs["pie"]
    tail = random.Random(5).randbytes(50_000)
    old, new = trees(
        tmp_path, {"app+x": before + tail}, {"app+x": after, "app+x.tail": tail}
    )
    delta = make_delta(tmp_path)

    assert delta.codec.startswith("delta2")
    applied(tmp_path, delta, old, new)


def test_the_bundle_does_not_depend_on_how_many_cores_there_are(tmp_path, programs):
    """In processes or one after another: the same bytes, also with references."""
    tail = random.Random(2).randbytes(1 << 20)
    sides = zip(*programs.values(), strict=True)
    trees(
        tmp_path,
        *({f"{n}+x": one + tail for n, one in enumerate(side)} for side in sides),
    )
    made = []
    for pool in (Pool(cores=1), Pool(cores=3), Pool(cores=2, budget=1)):
        delta = make_delta(tmp_path, pool=pool)
        made.append((delta, (tmp_path / "delta").read_bytes()))

    assert made[0][0].codec.startswith("delta2")
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("rate", exchange.RATES.values())
def test_a_small_delta_of_programs_is_packed_by_xz(tmp_path, programs, rate):
    """zstd takes longer to load than a small delta by xz to decode."""
    before, after = programs["pie"]
    old, new = trees(tmp_path, {"app+x": before}, {"app+x": after})
    delta = make_delta(tmp_path, pool=Pool(rate=rate))

    assert delta.codec == "delta2+xz"
    applied(tmp_path, delta, old, new)


def test_a_program_that_is_matched_in_parts_gets_a_plain_delta(tmp_path, programs):
    """Beyond the budget files are cut, and an image is of a whole one."""
    tail = random.Random(3).randbytes(3 << 20)
    before, after = programs["pie"]
    old, new = trees(
        tmp_path, {"app+x": before + tail}, {"app+x": after + tail[:-1] + b"."}
    )
    delta = make_delta(tmp_path, budget=1)

    assert delta.codec.startswith("delta1")
    applied(tmp_path, delta, old, new)


def test_of_more_operations_than_readers_keep_the_longest_are_left(
    tmp_path, programs, monkeypatch
):
    """The limit is the reader's: nothing is published that it would refuse."""
    before, after = programs["pie"]
    sides = {"app+x": before}, {"app+x": after}
    old, new = trees(tmp_path, *sides)
    length = make_delta(tmp_path).length
    count = int.from_bytes(_stream(tmp_path, 1)[:2], "little") + 1
    monkeypatch.setattr(making, "MAX_OPERATIONS", count * 3 // 4)
    delta = make_delta(tmp_path)

    assert delta.codec.startswith("delta2")
    assert length <= delta.length < plain_length(tmp_path / "plain", *sides)
    assert int.from_bytes(_stream(tmp_path, 1)[:2], "little") < count * 3 // 4
    applied(tmp_path, delta, old, new)
    monkeypatch.setattr(making, "MAX_OPERATIONS", 0)
    delta = make_delta(tmp_path)
    assert delta.codec.startswith("delta1")
    applied(tmp_path, delta, old, new)


@pytest.mark.parametrize("budget", [86, 84])
def test_a_program_beyond_the_budget_is_matched_in_windows(tmp_path, programs, budget):
    """Its references are re-aimed all the same: some bytes more, and as small a task.

    80 MiB are for the processes. Each side has 1.2 MB, so that whole it takes seven,
    with all old bytes and some new ones six, and subtracted four.
    """
    tail = random.Random(3).randbytes(1 << 20)
    before, after = programs["pie"]
    old, new = trees(
        tmp_path, {"app+x": before + tail}, {"app+x": after + tail[:-1] + b"."}
    )
    whole = make_delta(tmp_path)
    delta = make_delta(tmp_path, budget=budget << 20)

    assert delta.codec.startswith("delta2")
    assert whole.length <= delta.length < 1.5 * whole.length
    applied(tmp_path, delta, old, new)


def test_more_images_than_readers_take_make_a_plain_delta(
    tmp_path, programs, monkeypatch
):
    """Groups of files have images as long as there is room for them."""
    tail = random.Random(6).randbytes(1 << 20)
    before, after = programs["pie"]
    names = "one+x", "two+x"
    old, new = trees(
        tmp_path,
        dict.fromkeys(names, before + tail),
        {name: after + tail + name.encode() for name in names},
    )
    lengths = [e.length for e in (*old, *new) if isinstance(e, File)]
    monkeypatch.setattr(images, "MAX_IMAGES", 2)
    delta = make_delta(tmp_path)

    assert len(images.decode(_stream(tmp_path), lengths, lambda *_: None)) == 2
    monkeypatch.setattr(images, "MAX_IMAGES", 1)
    assert make_delta(tmp_path).codec.startswith("delta1")
    monkeypatch.undo()
    delta = make_delta(tmp_path)
    applied(tmp_path, delta, old, new)


def test_a_tiny_program_is_not_worth_an_image(tmp_path):
    """Few references cost less than describing where they may be."""
    need("gcc")
    sources = compiled.source(3), compiled.source(3, (1,))
    before, after = (
        {"app+x": compiled.build(tmp_path / f"tiny{n}", text, "pie")}
        for n, text in enumerate(sources)
    )
    old, new = trees(tmp_path, before, after)
    delta = make_delta(tmp_path)

    assert delta.codec.startswith("delta1")
    applied(tmp_path, delta, old, new)


def test_a_program_that_only_says_another_version_has_no_image(tmp_path, programs):
    """Nothing has moved in it: to describe its references would be most of the delta.

    Where more differs, it is described as before, also when its length is the same.
    """
    before = programs["pie"][0]
    middle = len(before) // 2
    after = before[:middle] + b"23.1.5" + before[middle + 6 :]
    old, new = trees(tmp_path, {"app+x": before}, {"app+x": after})
    delta = make_delta(tmp_path)

    assert delta.codec.startswith("delta1")
    assert delta.length < 100
    applied(tmp_path, delta, old, new)

    rest = random.Random(5).randbytes(len(before) - middle)
    trees(tmp_path, {"app+x": before}, {"app+x": before[:middle] + rest})
    assert make_delta(tmp_path).codec.startswith("delta2")


def test_a_program_that_changes_meanwhile_is_an_error_that_says_so(tmp_path, programs):
    """As for every other file; nothing is written then."""
    before, after = programs["pie"]
    old, new = trees(tmp_path, {"app+x": before}, {"app+x": after})
    (tmp_path / "new/app+x").write_bytes(after[:-1])
    with pytest.raises(updaterd.errors.BrokenError) as caught:
        delta_bundle.build_delta(
            tmp_path / "old",
            old,
            tmp_path / "new",
            new,
            tmp_path / "delta",
            from_version="1",
            to_version="2",
        )

    assert caught.value.code == "tree_changed"
