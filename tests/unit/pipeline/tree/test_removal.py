# SPDX-License-Identifier: Apache-2.0
"""Deletion in a release: what others put on the way leads nowhere else."""

from updaterd.pipeline.tree import removal


def test_a_link_on_the_way_is_not_followed(tmp_path):
    """Whoever may write in a release could point its folders at someone's home."""
    outside = tmp_path / "home"
    (outside / "__pycache__").mkdir(parents=True)
    (outside / "__pycache__/main.pyc").touch()
    tree = tmp_path / "releases/1.0.0"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib/app").symlink_to(outside)

    for path in ("lib/app/__pycache__/main.pyc", "lib/app/__pycache__"):
        assert removal.delete(tree, path) == ()

    assert (outside / "__pycache__/main.pyc").exists()


def test_a_folder_goes_whole_and_a_link_goes_alone(tmp_path):
    outside = tmp_path / "home"
    outside.mkdir()
    (outside / "letter").touch()
    tree = tmp_path / "releases/1.0.0"
    (tree / "lib/__pycache__/deeper").mkdir(parents=True)
    (tree / "lib/__pycache__/main.pyc").touch()
    (tree / "lib/link").symlink_to(outside)

    assert removal.delete(tree, "lib/__pycache__") == ()
    assert removal.delete(tree, "lib/link") == ()
    assert removal.delete(tree, "lib/nothing") == ()

    assert [] == sorted(path.name for path in (tree / "lib").iterdir())
    assert (outside / "letter").exists()
