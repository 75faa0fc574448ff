# SPDX-License-Identifier: Apache-2.0
"""`updaterd bundle`: what a bundle is, and its tree, without a repository."""

import json
import os
from dataclasses import replace

import pytest
from fakes.bundles import grow, make_delta
from fakes.repository import manifest_of

from updaterd import cli
from updaterd.errors import BrokenError, MalformedError
from updaterd.release import tree
from updaterd.release.bundles import full as full_bundle
from updaterd.release.bundles import inspection


@pytest.fixture
def release(tmp_path):
    """A release with its full bundle and a delta, and its manifest in a file."""
    base = bytes(range(256)) * 40
    grow(tmp_path / "old", {"app+x": base, "data/a": b"a" * 500, "link": "app+x"})
    files = grow(tmp_path / "new", {"app+x": base + b"more", "data/b": b"a" * 500})
    full = full_bundle.build_full(tmp_path / "new", files, tmp_path / "full")
    delta = make_delta(tmp_path)
    manifest = manifest_of("acme", "2", 2, files=files, full=full)
    manifest = replace(manifest, deltas=(delta,))
    (tmp_path / "manifest").write_bytes(manifest.encode())
    return manifest


def run(capsys, *words):
    code = cli.main(["bundle", *map(str, words)])
    return code, capsys.readouterr()


def test_a_bundle_says_what_its_manifest_says_of_it(tmp_path, release, capsys):
    for name, blob in (("full", release.full), ("delta", release.deltas[0])):
        code, streams = run(
            capsys, "inspect", tmp_path / name, "--manifest", tmp_path / "manifest",
            "--json",
        )  # fmt: skip
        document = json.loads(streams.out)

        assert code == 0
        assert document["kind"] == name
        assert document["codec"] == blob.codec
        assert document["length"] == blob.length
        assert document["to_tree"] == release.tree
        assert all(need in blob.codec for need in document["needs"])
    assert document["from"] == "1"


def test_each_kind_makes_the_tree_that_the_manifest_lists(tmp_path, release, capsys):
    for name, more in (("full", ()), ("delta", ("--old", tmp_path / "old"))):
        out = tmp_path / f"made-{name}"
        code, _ = run(
            capsys, "apply", tmp_path / name, out, "--manifest", tmp_path / "manifest",
            *more,
        )  # fmt: skip

        assert code == 0
        assert tree.scan(out) == release.files


def test_a_damaged_bundle_is_in_no_manifest_and_leaves_nothing(
    tmp_path, release, capsys
):
    data = bytearray((tmp_path / "full").read_bytes())
    data[-1] ^= 1
    (tmp_path / "full").write_bytes(data)

    code, streams = run(
        capsys, "apply", tmp_path / "full", tmp_path / "out", "--manifest",
        tmp_path / "manifest",
    )  # fmt: skip

    assert code == 1
    assert "does not list this bundle" in streams.err
    assert not (tmp_path / "out").exists()


def test_a_delta_from_another_tree_is_refused(tmp_path, release, capsys):
    (tmp_path / "old" / "data" / "a").write_bytes(b"changed")

    code, streams = run(
        capsys, "apply", tmp_path / "delta", tmp_path / "out", "--manifest",
        tmp_path / "manifest", "--old", tmp_path / "old",
    )  # fmt: skip

    assert code == 1
    assert "is not the tree of 1" in streams.err
    assert not (tmp_path / "out").exists()


def test_a_directory_that_exists_is_left_alone(tmp_path, release, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")

    code, _ = run(
        capsys, "apply", tmp_path / "full", tmp_path / "out", "--manifest",
        tmp_path / "manifest",
    )  # fmt: skip

    assert code == 1
    assert (tmp_path / "out" / "mine").read_text() == "precious"


def test_what_is_no_bundle_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"hello")

    with pytest.raises(MalformedError):
        inspection.inspect(tmp_path / "file")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")

    for read in (inspection.inspect, inspection.read_manifest):
        with pytest.raises(BrokenError, match="not a regular file"):
            read(tmp_path / "fifo")
