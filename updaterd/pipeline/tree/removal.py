# SPDX-License-Identifier: Apache-2.0
"""Deletion of a single path in a tree on disk, by descriptor, never through a link."""

from pathlib import Path

from updaterd.artifact.folders import Folders
from updaterd.files import deletion


def delete(tree: Path, path: str) -> bool:
    """Delete what stands at a path of a tree; tell whether nothing is there any more.

    Args:
        tree: a release, or one that is being built.
        path: relative to it; a folder goes with all that is in it.

    Power cut: part of it is deleted; the next call deletes the rest.
    """
    try:
        with Folders(tree) as folders:
            directory, name = folders.parent(path)
            return not deletion.delete_at(directory, name, tree / path)
    except (FileNotFoundError, NotADirectoryError):
        return True  # nothing there, or a link on the way, which is no part of it
    except OSError:
        return False
