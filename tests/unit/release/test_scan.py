# SPDX-License-Identifier: Apache-2.0
"""The publisher refuses a tree that machines cannot build, or people cannot read."""

import pytest
from fakes.bundles import delta_job, grow, make_delta, run

from updaterd.artifact.verify import verify_tree
from updaterd.core.tree import MAX_DEPTH
from updaterd.errors import RejectedError
from updaterd.release import tree


def refused(root):
    with pytest.raises(RejectedError) as caught:
        tree.scan(root)
    return caught.value.code


def test_a_link_that_escapes_through_another_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/y").symlink_to(".")
    (tmp_path / "data/evil").symlink_to("y/" * 20 + "../" * 20 + "etc/passwd")
    assert refused(tmp_path) == "bad_link"


def test_a_tree_of_140_levels_is_refused(tmp_path):
    grow(tmp_path, {"d/" * (MAX_DEPTH - 1) + "f": b"as deep as may be"})
    (tmp_path / ("e/" * 140)).mkdir(parents=True)
    (tmp_path / ("e/" * 140) / "f").touch()
    assert refused(tmp_path) == "too_deep"


@pytest.mark.parametrize("name", ["a\x9b31m", "gpj.\u202eexe", "a\u200bb", "a\u0378"])
def test_a_name_that_nobody_can_read_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert refused(tmp_path) == "bad_path"


def test_names_that_differ_only_by_normalisation_are_refused(tmp_path):
    for folder in ("caf\u00e9", "cafe\u0301"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / folder[0]).touch()
    assert refused(tmp_path) == "bad_path"


def test_the_deepest_tree_that_is_accepted_is_built_by_workers(tmp_path):
    """Chains of directories in the old, the new and the made tree at once."""
    deep = "d/" * (MAX_DEPTH - 1)
    same = {deep + "g": b"same"}
    old = grow(tmp_path / "old", {**same, deep + "f": b"a" * 5000})
    new = grow(tmp_path / "new", {**same, deep + "f": b"a" * 5001, "moved": b"same"})
    make_delta(tmp_path)
    job = delta_job(tmp_path, tmp_path / "delta", old, new)
    assert not run(job).missing
    assert verify_tree(job.destination, new) == ()
