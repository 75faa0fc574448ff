# SPDX-License-Identifier: Apache-2.0
"""Bundles that were published stay readable: golden files of each format.

`python tests/unit/artifact/test_golden.py DIR [delta2|...|delta5]` makes all or one
anew: only for a new format, under new names.
"""

import json
import os
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from fakes.bundles import perform

from updaterd.artifact.job import Job, entries, rows
from updaterd.artifact.verify import verify_tree
from updaterd.core.bundle_kinds import BSDIFF
from updaterd.core.manifest import tree_id
from updaterd.core.routes import CODECS
from updaterd.errors import RejectedError

GOLDEN = Path(__file__).with_name("golden")
TEXT = b"".join(b"%d bottles\n" % n for n in range(300))
OLD = {"bin/p+x": TEXT * 4, "keep": b"k", "gone": b"g", "was": b"moved", "e": b""}
NEW = {
    "bin/p+x": TEXT * 3 + b"!" + TEXT,
    "keep": b"k",
    "is": b"moved",
    "d/twin": TEXT[99:],
    "d/twin2": TEXT[99:],
    "l": "d/twin",
    "e": b"",
}
PROSE = (
    {"a": TEXT, "b": b"".join(b"%d green walls\n" % n for n in range(200))},
    {"a": TEXT[:700], "c": b"".join(b"%d green bottles\n" % n for n in range(7, 90))},
)
NAMES = ("full1", "delta1", "bsdiff40")


def makes(tmp_path, fact, bundle, old, new, *, kind="delta"):
    """Assert that this reader makes the tree of a golden bundle."""
    (tmp_path / "out").mkdir()
    perform(
        Job(
            kind=kind,
            codec=fact["codec"],
            bundle=bundle,
            bundle_sha256=fact["sha256"],
            bundle_length=fact["length"],
            destination=tmp_path / "out",
            files=new,
            tree=fact["tree"],
            old=tmp_path / "old",
            old_files=old,
        )
    )
    assert not verify_tree(tmp_path / "out", new)
    assert fact["codec"] in CODECS


def _listings():
    facts = json.loads((GOLDEN / "facts.json").read_text())
    return facts, entries(facts["old"]), entries(facts["new"])


@pytest.mark.parametrize("name", NAMES)
def test_golden_bundles_make_their_tree(tmp_path, name):
    """Whatever wrote them: this reader still makes the same tree of them."""
    from fakes.bundles import grow

    facts, old, new = _listings()
    assert old == grow(tmp_path / "old", OLD)
    assert new == grow(tmp_path / "new", NEW)
    fact = facts["bundles"][name]
    makes(
        tmp_path,
        fact,
        GOLDEN / name,
        old,
        new,
        kind="full" if name == "full1" else "delta",
    )


@pytest.mark.parametrize("loops", ["compiled", "interpreted"])
def test_a_golden_delta_with_images_makes_its_tree(tmp_path, monkeypatch, loops):
    """Whoever re-aims its references: this reader still makes the same tree of it."""
    from fakes.uncompiled import use

    use(loops, monkeypatch)
    facts, _, _ = _listings()
    fact = facts["bundles"]["delta2"]
    old, new, _ = _moved(tmp_path)
    assert old == entries(fact["old"])
    assert new == entries(fact["new"])
    makes(tmp_path, fact, GOLDEN / "delta2", old, new)


@pytest.mark.parametrize("loops", ["compiled", "interpreted"])
def test_a_golden_delta_of_an_aarch64_program_makes_its_tree(
    tmp_path, monkeypatch, loops
):
    """Whoever re-aims its references: this reader still makes the same tree of it."""
    from fakes.arm_programs import moved
    from fakes.uncompiled import use

    use(loops, monkeypatch)
    facts, _, _ = _listings()
    fact = facts["bundles"]["delta4"]
    old, new, _ = moved(tmp_path)
    (tmp_path / "delta4").write_bytes(b64decode(fact["bundle"]))
    assert old == entries(fact["old"])
    assert new == entries(fact["new"])
    makes(tmp_path, fact, tmp_path / "delta4", old, new)


@pytest.mark.parametrize("loops", ["compiled", "interpreted"])
def test_a_golden_delta_that_looks_into_archives_makes_its_tree(
    tmp_path, monkeypatch, loops
):
    """Whichever version of zlib deflates them: it makes the same of them as then."""
    from fakes.bundles import grow
    from fakes.uncompiled import use

    from updaterd.artifact import classic

    if not classic.is_here():
        pytest.skip("this Python has another zlib, and is never offered such a delta")
    use(loops, monkeypatch)
    facts, _, _ = _listings()
    fact = facts["bundles"]["delta3"]
    old = grow(tmp_path / "old", {"a.zip": b64decode(fact["archive"])})
    (tmp_path / "delta3").write_bytes(b64decode(fact["bundle"]))
    assert old == entries(fact["old"])
    new = entries(fact["new"])
    makes(tmp_path, fact, tmp_path / "delta3", old, new)


def test_a_golden_delta_with_a_prefix_makes_its_tree(tmp_path):
    """Whichever zstd wrote it: this reader still makes the same tree of it."""
    from fakes.bundles import grow

    facts, _, _ = _listings()
    fact = facts["bundles"]["delta5"]
    old = grow(tmp_path / "old", PROSE[0])
    (tmp_path / "delta5").write_bytes(b64decode(fact["bundle"]))
    assert old == entries(fact["old"])
    makes(tmp_path, fact, tmp_path / "delta5", old, entries(fact["new"]))


def _moved(base):
    """Return trees of a little program that moved, with bytes that really changed."""
    from fakes.bundles import grow
    from fakes.programs import CODE_AT, TEXT, moved

    old, _, streams = moved(base)
    at, changes = CODE_AT + 24, b"\1\2\3"  # where its first function ends
    for name in ("b", "d"):  # the second is made of the first
        path = base / "new" / name
        data = bytearray(path.read_bytes())
        for place, change in enumerate(changes, at):
            data[place] = (data[place] + change) % 256
        path.write_bytes(data)
    zeros = len(TEXT) - 8 + at  # of the diff: there is text before the program
    streams[2] = bytes(2) + zeros.to_bytes(3, "little") + bytes([len(changes), 0])
    streams[3] = changes
    return old, grow(base / "new", {}), streams


def test_bundle_refused_in_the_middle_of_a_file_leaves_nothing_open(tmp_path):
    """Wherever it is cut: who reads many bundles does not run out of descriptors."""
    from fakes.bundles import grow

    old, new = grow(tmp_path / "old", OLD), grow(tmp_path / "new", NEW)
    whole = (GOLDEN / "bsdiff40").read_bytes()
    before = len(os.listdir("/proc/self/fd"))
    for length in range(1, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:length])
        out = tmp_path / f"out{length}"
        out.mkdir()
        with pytest.raises(RejectedError):
            perform(
                Job(
                    kind="delta",
                    codec=BSDIFF,
                    bundle=tmp_path / "cut",
                    bundle_sha256=sha256(whole[:length]).hexdigest(),
                    bundle_length=length,
                    destination=out,
                    files=new,
                    tree=tree_id(new),
                    old=tmp_path / "old",
                    old_files=old,
                )
            )
    assert len(os.listdir("/proc/self/fd")) == before


def make(base: Path) -> None:
    import hashlib

    import bsdiff4
    from fakes.bundles import grow, make_delta

    from updaterd.release.bundles import full as full_bundle

    old, new = grow(base / "old", OLD), grow(base / "new", NEW)
    full = full_bundle.build_full(base / "new", new, GOLDEN / "full1")
    delta = make_delta(base)
    (GOLDEN / "delta1").write_bytes((base / "delta").read_bytes())
    joined = (
        b"".join((base / t / e.path).read_bytes() for e in f if hasattr(e, "length"))
        for t, f in (("old", old), ("new", new))
    )
    (GOLDEN / "bsdiff40").write_bytes(bsdiff4.diff(*joined))
    codecs = (full.codec, delta.codec, BSDIFF)
    facts = {"old": rows(old), "new": rows(new), "bundles": {}}
    for name, codec in zip(NAMES, codecs, strict=True):
        data = (GOLDEN / name).read_bytes()
        facts["bundles"][name] = {
            "codec": codec,
            "sha256": hashlib.sha256(data).hexdigest(),
            "length": len(data),
            "tree": tree_id(new),
        }
    (GOLDEN / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    make_delta2(base / "images")
    make_delta3(base / "archives")
    make_delta4(base / "arm")
    make_delta5(base / "prose")


def record(name, codec, data, old, new, **parts) -> None:
    """Write the row of a bundle into facts.json."""
    facts = json.loads((GOLDEN / "facts.json").read_text())
    facts["bundles"][name] = {
        "codec": codec,
        **parts,
        "sha256": sha256(data).hexdigest(),
        "length": len(data),
        "tree": tree_id(new),
        "old": rows(old),
        "new": rows(new),
    }
    (GOLDEN / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def make_delta2(base: Path) -> None:
    from fakes.bundles import assemble, pack

    from updaterd.artifact.codecs import ZSTD, zstd
    from updaterd.artifact.container import DELTA

    old, new, streams = _moved(base)
    names, *others = streams
    packed = [pack(data) for data in others]
    data = assemble(DELTA, (ZSTD, len(names), zstd().compress(names, 19)), *packed)
    (GOLDEN / "delta2").write_bytes(data)
    record("delta2", "delta2+xz+zstd", data, old, new)


def make_delta3(base: Path) -> None:
    from fakes.archives import text, zipped
    from fakes.bundles import grow

    from updaterd.release.bundles.delta import build_inflated

    inner = [
        zipped({"x": text(1, 90) + end, "y": text(2, 90)}, 9) for end in (b"", b"end")
    ]
    old, new = (
        grow(base / name, {"a.zip": zipped({"in.zip": data, "z": text(3, 90)})})
        for name, data in zip(("old", "new"), inner, strict=True)
    )
    made = build_inflated(
        base / "old", old, base / "new", new, base / "delta",
        from_version="1", to_version="2",
    )  # fmt: skip
    data = (base / "delta").read_bytes()
    record(
        "delta3",
        made.codec,
        data,
        old,
        new,
        bundle=b64encode(data).decode(),
        archive=b64encode((base / "old/a.zip").read_bytes()).decode(),
    )


def make_delta4(base: Path) -> None:
    from fakes.arm_programs import moved
    from fakes.bundles import assemble, pack

    from updaterd.artifact.container import DELTA

    old, new, streams = moved(base)
    data = assemble(DELTA, *(pack(stream) for stream in streams))
    record("delta4", "delta4+xz", data, old, new, bundle=b64encode(data).decode())


def make_delta5(base: Path) -> None:
    from fakes.bundles import grow

    from updaterd.release.bundles.delta import build_primed

    old, new = grow(base / "old", PROSE[0]), grow(base / "new", PROSE[1])
    made = build_primed(
        base / "old", old, base / "new", new, base / "delta",
        from_version="1", to_version="2",
    )  # fmt: skip
    data = (base / "delta").read_bytes()
    record("delta5", made.codec, data, old, new, bundle=b64encode(data).decode())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    makers = {
        "delta2": make_delta2,
        "delta3": make_delta3,
        "delta4": make_delta4,
        "delta5": make_delta5,
    }
    makers.get(sys.argv[2] if sys.argv[2:] else "", make)(Path(sys.argv[1]))
