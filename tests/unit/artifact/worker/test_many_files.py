# SPDX-License-Identifier: Apache-2.0
"""Trees of very many files: what holds their listings has the memory for it."""

import hashlib

import pytest
from fakes.bundles import delta_job, grow, make_delta

from updaterd.artifact.worker import parent
from updaterd.artifact.worker.answers import Done
from updaterd.core.frozen import replaced
from updaterd.core.manifest import tree_id
from updaterd.core.tree import File
from updaterd.errors import RejectedError
from updaterd.release import tree
from updaterd.release.bundles import delta as delta_bundle
from updaterd.release.bundles import proof

MANY = 100_000
ODD = hashlib.sha256(b"").hexdigest()


@pytest.mark.slow
def test_a_delta_for_a_tree_of_100_000_files_is_applied(tmp_path):
    """3.4 kB, which every machine refused: "needs more memory than it may have"."""
    others = tuple(
        File(
            f"usr/lib/python3/dist-packages/p{n // 200}/module_{n:06d}.py", ODD, 0, 420
        )
        for n in range(MANY)
    )
    listed = {}
    for name in ("old", "new"):
        grow(tmp_path / name, {"app": name.encode() * 100})
        listed[name] = (*tree.scan(tmp_path / name), *others)
    delta = delta_bundle.build_delta(
        tmp_path / "old",
        listed["old"],
        tmp_path / "new",
        listed["new"],
        tmp_path / "delta",
        from_version="1",
        to_version="2",
    )
    job = delta_job(tmp_path, tmp_path / "delta", listed["old"], listed["new"])
    job = replaced(job, codec=delta.codec, done=frozenset(file.path for file in others))

    answer = parent.ask(job)

    assert isinstance(answer.end, Done), answer
    assert (tmp_path / "new/app").read_bytes() in {
        path.read_bytes() for path in tmp_path.glob("out*/app")
    }


@pytest.fixture
def large(tmp_path):
    """A delta between two trees that count as large."""
    files = {f"f{n}": bytes([n]) * 100 for n in range(20)}
    before = grow(tmp_path / "old", files)
    after = grow(tmp_path / "new", files | {"f3": b"new" * 40, "g": b"g"})
    delta = make_delta(tmp_path)
    (tmp_path / "work").mkdir()
    bundle = (tmp_path / "delta").rename(tmp_path / "work" / "delta")
    old = type("Manifest", (), {"files": before, "tree": tree_id(before)})

    def check():
        data = bundle.read_bytes()
        named = hashlib.sha256(data).hexdigest()
        edge = type(delta)(
            **{name: getattr(delta, name) for name in type(delta).__slots__}
            | {"sha256": named, "length": len(data)}
        )
        prover = proof.Prover(bundle.parent, min_updater="0.1.0")
        prover.delta(bundle, edge, tmp_path / "old", old.files, after)

    return check, bundle


def test_what_machines_can_apply_is_offered_and_leaves_nothing(large):
    check, bundle = large

    check()

    assert [bundle] == list(bundle.parent.iterdir())


def test_what_machines_would_refuse_is_not_offered(large):
    """`push` says so; it had noticed nothing."""
    check, bundle = large
    data = bytearray(bundle.read_bytes())
    data[-3] ^= 0xFF
    bundle.write_bytes(data)

    with pytest.raises(
        RejectedError, match="was applied and does not make the release"
    ):
        check()

    assert [bundle] == list(bundle.parent.iterdir())
