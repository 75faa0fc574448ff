# SPDX-License-Identifier: Apache-2.0
"""Deletion of a single path in a tree on disk, by descriptor, never through a link."""

import os
from pathlib import Path

from updaterd.artifact.folders import Folders
from updaterd.files import deletion
from updaterd.files.volumes import Obstacle


def delete(tree: Path, path: str) -> tuple[Obstacle, ...]:
    """Delete what stands at a path of a tree; return what keeps a folder there.

    Args:
        tree: a release, or one that is being built.
        path: relative to it; a folder goes with all that is in it.

    Raises:
        OSError: a single file, or its folder, cannot be changed.

    Power cut: part of it is deleted; the next call deletes the rest.
    """
    try:
        with Folders(tree) as folders:
            directory, name = folders.parent(path)
            try:
                os.unlink(name, dir_fd=directory)
            except IsADirectoryError:
                return deletion.delete_at(directory, name, tree / path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # nothing there, or a link on the way, which is no part of it
    return ()
