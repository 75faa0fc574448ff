# SPDX-License-Identifier: Apache-2.0
"""A tree that a killed run left half-built is continued, file by file, by hash only."""

import hashlib
import os
import random
from types import SimpleNamespace

import pytest
from fakes.bundles import assemble, delta_job, grow, make_delta, pack, perform

from updaterd.artifact import container, script
from updaterd.artifact.apply import operations
from updaterd.artifact.codecs import STORED
from updaterd.artifact.script import MADE, Item
from updaterd.artifact.verify import verify_tree
from updaterd.artifact.worker import parent
from updaterd.core.attributes import NONE
from updaterd.core.bundle_kinds import BSDIFF
from updaterd.core.frozen import replaced
from updaterd.core.manifest import Delta, File, tree_id
from updaterd.core.settings import Download
from updaterd.errors import TransientError
from updaterd.pipeline.run import Run
from updaterd.pipeline.tree import build, reuse
from updaterd.pipeline.tree.job import Job
from updaterd.release.bundles import full as release_bundle

pytestmark = pytest.mark.slow

NOTHING = (STORED, 0, b"")
MIB = 1 << 20


class Killed(BaseException):
    """The end of a process."""


def _content(name, version):
    return random.Random(f"{name} {version}").randbytes(3 * MIB)


@pytest.fixture
def base(tmp_path):
    """An old tree, and a new one of which six files are made and two are shared."""
    same = {"same": b"same", "d/same+x": b"again", "l": "same"}
    grow(tmp_path / "old", same)
    names = {f"f{n}": _content(n, 1) for n in range(6)}
    grow(tmp_path / "new", same | names)
    _bundle(tmp_path, "old", "new", "delta")
    return tmp_path


def _bundle(base, old, new, out):
    """Write a delta by hand: everything that is not kept is new."""
    before, after = grow(base / old, {}), grow(base / new, {})
    kept = {e.path for e in after if e in before}
    made = [e for e in after if e.path not in kept and isinstance(e, File)]
    items = [Item(e.path, MADE, e.mode, e.length) for e in made]
    extra = b"".join((base / new / e.path).read_bytes() for e in made)
    ops = b"".join(operations.encode([(0, len(extra), 0)]))
    raw = script.encode(before, items, [], [], kept)
    stored = (STORED, len(extra), extra)
    data = assemble(container.DELTA, pack(raw), pack(ops), NOTHING, NOTHING, stored)
    (base / out).write_bytes(data)
    return data


def _job(base, **changes):
    before, after = grow(base / "old", {}), grow(base / "new", {})
    return delta_job(base, base / "delta", before, after, **changes)


def _killed(job, after=7 * MIB):
    """Run the worker until it has made so many bytes, and kill it."""

    def stop(done, _):
        if done >= after:
            raise Killed

    with pytest.raises(Killed):
        parent.run(job, on_progress=stop)


def _go_on(job):
    done = reuse.salvage(job.destination, job.files)
    return done, parent.run(replaced(job, done=done))


def test_a_killed_worker_is_continued(base):
    """Files that were complete are not written again; the others come out right."""
    job = _job(base)
    _killed(job)
    before = {p.name: p.stat().st_ino for p in job.destination.iterdir()}

    done, report = _go_on(job)

    assert not verify_tree(job.destination, job.files)
    assert {"f0", "f1"} <= done
    assert report.files_done == len(done)
    assert report.files_changed == 6 - len(done)
    assert report.bytes_written == 3 * MIB * (6 - len(done))
    for name in done:
        assert before[name] == (job.destination / name).stat().st_ino


def _flip(root):
    data = bytearray((root / "f0").read_bytes())
    data[MIB] ^= 1
    (root / "f0").write_bytes(data)


def _link(root):
    (root / "f0").rename(root.parent / "f0")
    (root / "f0").symlink_to(root.parent / "f0")


def _stray(root):
    (root / "stray" / "deep").mkdir(parents=True)
    (root / "stray" / "deep" / "file").write_text("evil")
    (root / "f1x").write_text("evil")


def _folder(root):
    (root / "f0").unlink()
    (root / "f0").mkdir()
    (root / "f0" / "x").write_text("x")


def _lead_out(root):
    (root.parent / "precious").mkdir()
    (root.parent / "precious" / "same+x").write_text("precious")
    (root / "d").symlink_to(root.parent / "precious")


LEFTOVERS = {
    "a flipped bit": _flip,
    "cut short": lambda root: os.truncate(root / "f0", MIB),
    "another mode": lambda root: (root / "f0").chmod(0o755),
    "a link to the right bytes": _link,
    "a directory": _folder,
    "what nobody listed": _stray,
    "a directory that leads out": _lead_out,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFTOVERS)
def test_a_leftover_is_believed_by_its_hash_only(base, name):
    """Tampered with in whatever way: made again, nothing outside touched."""
    job = _job(base)
    _killed(job)
    LEFTOVERS[name](job.destination)

    done, report = _go_on(job)

    assert not verify_tree(job.destination, job.files)
    if (base / "precious").exists():
        assert "precious" == (base / "precious" / "same+x").read_text()
    if not name.startswith("what"):
        assert "f0" not in done or name == "a directory that leads out"
        assert report.files_changed >= 6 - len(done)


def test_a_hard_link_to_the_running_release_is_not_left_to_the_next_opener(base):
    """It may write to all that is staged; what it breaks would be the release's."""
    job = _job(base, unchanged="hardlink")
    report = parent.run(job)
    assert report.files_shared == 2
    running = base / "old" / "same"
    assert running.samefile(job.destination / "same")

    done, report = _go_on(job)

    assert {f"f{n}" for n in range(6)} | {"l"} == done
    assert running.samefile(job.destination / "same"), "made again afterwards"
    assert not verify_tree(job.destination, job.files)


@pytest.mark.slow
def test_any_leftover_of_any_bundle_is_continued(tmp_path):
    """Every subset of a tree: from full bundle, delta and patch alike."""
    import bsdiff4

    draw = random.Random(4)
    text = b"".join(b"%d bottles\n" % n for n in range(9000))
    twin = draw.randbytes(5000)
    before = grow(tmp_path / "old", {"a": text, "b": twin[:4000], "k": b"k", "m": twin})
    after = grow(
        tmp_path / "new",
        {
            "a": text[:50_000] + b"!" + text[50_000:],
            "b": text[900:],
            "e": b"",
            "k": b"k",
            "moved": twin,
            "t1": b"twin" * 99,
            "t2": b"twin" * 99,
            "z/link": "../a",
            "z/last": text[:3000] + twin,
        },
    )
    make_delta(tmp_path)
    full = release_bundle.build_full(tmp_path / "new", after, tmp_path / "full")
    joined = (
        b"".join((tmp_path / t / e.path).read_bytes() for e in f if hasattr(e, "mode"))
        for t, f in (("old", before), ("new", after))
    )
    (tmp_path / "bsdiff").write_bytes(bsdiff4.diff(*joined))
    kinds = {
        "delta": {},
        "full": {"kind": "full", "codec": full.codec},
        "bsdiff": {"codec": BSDIFF},
    }
    for name, changes in kinds.items():
        for _ in range(25):
            job = delta_job(tmp_path, tmp_path / name, before, after, **changes)
            chosen = {e.path for e in after if draw.randrange(3)}
            for path in chosen:
                there = job.destination / path
                there.parent.mkdir(exist_ok=True)
                if (tmp_path / "new" / path).is_symlink():
                    there.symlink_to((tmp_path / "new" / path).readlink())
                else:
                    there.write_bytes((tmp_path / "new" / path).read_bytes())
                    there.chmod(0o644)
            done, report = _in_process(job)
            assert chosen == done
            assert not verify_tree(job.destination, after)
            assert report.files_done == len(done)


def _in_process(job):

    done = reuse.salvage(job.destination, job.files)
    return done, perform(replaced(job, done=done))


class Teller:
    """Ends the process at a given point, as a signal would."""

    stop_in = ""

    def say(self, text):
        pass

    def progress(self, what, done, total):
        if self.stop_in and done >= 7 * MIB:
            raise Killed


@pytest.fixture
def path(base):
    """A path of two deltas, and what `build` needs to walk it."""
    root = base / "app"
    newest = {f"f{n}": _content(n, 2) for n in range(6)}
    grow(base / "newest", {"same": b"same", "d/same+x": b"again", "l": "same"} | newest)
    _bundle(base, "new", "newest", "delta2")
    trees = {name: grow(base / name, {}) for name in ("old", "new", "newest")}
    (root / "releases").mkdir(parents=True)
    (base / "old").rename(root / "releases" / "1")
    steps = tuple(
        Delta(
            from_version=old,
            from_tree=tree_id(trees[old]),
            to_version=new,
            to_tree=tree_id(trees[new]),
            sha256=hashlib.sha256((base / out).read_bytes()).hexdigest(),
            length=(base / out).stat().st_size,
            codec="delta1+xz",
            memory=1,
        )
        for old, new, out in (("old", "new", "delta"), ("new", "newest", "delta2"))
    )
    manifest = SimpleNamespace(
        version="3",
        files=trees["newest"],
        tree=tree_id(trees["newest"]),
        attributes=NONE,
    )
    services = SimpleNamespace(teller=Teller(), download=Download(min_free=0))
    route = SimpleNamespace(start="1", steps=steps)
    product = SimpleNamespace(root=str(root), unchanged="copy")

    def walk():
        job = Job(
            run=Run(product, services),
            manifest=manifest,
            raw=lambda: b"{}",
            ident=1,
            bases={"1": trees["old"]},
        )
        build.build(job, route, [base / "delta", base / "delta2"])
        return job

    return SimpleNamespace(walk=walk, root=root, services=services, trees=trees)


@pytest.mark.slow
def test_a_path_goes_on_in_its_last_step(path, monkeypatch):
    """The tree in between is not built again, nor are the files of the last one."""
    path.services.teller.stop_in = "last"
    real, runs = parent.run, []

    def run(job, **more):
        if not runs:
            more = {}  # the first step is left alone
        runs.append(job)
        return real(job, **more)

    monkeypatch.setattr(build.parent, "run", run)
    with pytest.raises(Killed):
        path.walk()
    assert len(runs) == 2
    path.services.teller.stop_in = ""

    job = path.walk()

    assert len(runs) == 3, "only the last step ran again"
    assert {"f0", "f1"} <= runs[2].done
    assert job.continued >= len(path.trees["new"]) + 2
    assert not verify_tree(path.root / "releases" / "3", path.trees["newest"])
    assert ["manifests"] == os.listdir(path.root / ".updaterd")


@pytest.mark.slow
def test_a_damaged_tree_in_between_is_built_again(path):
    """Its listing is believed by the signed tree id, its files by that listing."""
    path.services.teller.stop_in = "first"
    with pytest.raises(Killed):
        path.walk()
    path.services.teller.stop_in = ""
    (staging,) = (path.root / ".updaterd").glob("stage-*")
    staging.with_suffix(".json").write_text('[["f0", "evil", 1, 420]]')

    job = path.walk()

    assert job.continued == 0
    assert not verify_tree(path.root / "releases" / "3", path.trees["newest"])


@pytest.mark.slow
def test_a_full_disk_keeps_nothing(path, monkeypatch):
    """What was made is in the way of what has to be freed."""

    def full(job, **_):
        (job.destination / "f0").write_bytes(b"half")
        raise TransientError("no space", code="disk_full")

    monkeypatch.setattr(build.parent, "run", full)
    with pytest.raises(TransientError):
        path.walk()
    assert ["manifests"] == os.listdir(path.root / ".updaterd")
