# SPDX-License-Identifier: Apache-2.0
"""Byte code that a Python left in a release: no damage, and none of its files.

A program of a release, a hook or an older updaterd may have compiled modules into
`__pycache__` beside them. What such a tree lacks nothing of is whole once that is gone.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from updaterd.artifact.verify import Problem, damage, verify_tree
from updaterd.core.attributes import Attributes
from updaterd.core.manifest import Entry
from updaterd.pipeline.tree import removal

_FOLDER = "__pycache__"


def swept(
    tree: Path, files: Sequence[Entry], more: Attributes, *, loose: bool = True
) -> tuple[Problem, ...]:
    """Return what is damaged of a tree, once stray byte code is deleted from it.

    Args:
        tree: a release on disk.
        files: its listing.
        more: what it carries beside that.
        loose: its times and folders may differ; see `verify_tree`.

    Raises:
        OSError: the tree cannot be read.

    Power cut: some of the byte code is gone; all else is as it was.
    """
    wrong = verify_tree(tree, files, more, loose=loose)
    modules = {
        str(PurePosixPath(entry.path).parent)
        for entry in files
        if entry.path.endswith(".py")
    }
    stray = [problem.path for problem in wrong if _is_stray(problem.path, modules)]
    for path in stray:
        removal.delete(tree, path)
    if stray:
        wrong = verify_tree(tree, files, more, loose=loose)
    return damage(wrong, files)


def _is_stray(path: str, modules: set[str]) -> bool:
    """Tell whether a path that is not as listed is byte code beside its module."""
    place = PurePosixPath(path)
    if place.name == _FOLDER:
        return str(place.parent) in modules
    compiled = place.suffix == ".pyc" or ".pyc." in place.name  # half written
    return (
        place.parent.name == _FOLDER
        and compiled
        and str(place.parent.parent) in modules
    )
