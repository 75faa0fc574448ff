# SPDX-License-Identifier: Apache-2.0
"""Take all releases of a product from the disk, and nothing else.

What belongs to a product is what updaterd puts into its root (`layout`): the releases,
the two links, its own folder. All else there is the application's or a person's, and
stays, and so does the root around it. No tree with another file system in it is
touched: `files/deletion`.
"""

import os
from contextlib import suppress
from pathlib import Path

from updaterd import durable
from updaterd.files import deletion, volumes
from updaterd.files.volumes import Obstacle
from updaterd.install import layout, stage

_LINKS = ("current", "previous")


def remove(root: Path) -> tuple[Obstacle, ...]:
    """Delete the product's releases; return what stood in the way.

    `current` goes first: whoever starts the application in the middle of this finds
    none, not half of one.

    Raises:
        OSError: the disk refused; the next call deletes the rest.

    Power cut: some of it is there, and `current` does not lead to it; the next call
        deletes the rest.
    """
    for name in _LINKS:
        if (root / name).is_symlink():
            durable.remove(root / name)
    obstacles: list[Obstacle] = []
    for path in _releases(root):
        obstacles += deletion.delete_tree(path)
    if obstacles:
        return tuple(obstacles)  # with what is known of them beside them
    for folder in (*layout.places(root), layout.releases(root)):
        obstacles += _emptied(folder)
    with suppress(OSError):  # others' things are in it, or it is not ours to delete
        root.rmdir()
    return tuple(obstacles)


def others(root: Path) -> tuple[str, ...]:
    """Return what is in a product's root and is not updaterd's, by name."""
    try:
        names = set(os.listdir(root))
    except OSError:
        return ()
    names -= {"releases", layout.PRIVATE}
    for name in _LINKS:
        if (root / name).is_symlink():
            names.discard(name)
    return tuple(sorted(names))


def _releases(root: Path) -> list[Path]:
    """Return the trees: of releases, also half of one, and those that others made."""
    releases = layout.releases(root)
    try:
        names = sorted(os.listdir(releases))
    except OSError:
        names = []
    trees = [releases / name for name in names if name != layout.PRIVATE]
    linked = any(
        tree.is_symlink() and tree.readlink() == Path("..", layout.OTHERS)
        for tree in trees
    )
    # what others installed was taken over as a release: it is the product's since
    return [root / layout.OTHERS, *trees] if linked else trees


def _emptied(folder: Path) -> tuple[Obstacle, ...]:
    """Delete a folder of ours; of a file system of its own, what is in it."""
    if folder.is_symlink() or not folder.is_dir():
        return ()
    obstacles = stage.delete_tree(folder)
    if not obstacles or volumes.same(folder, folder.parent):
        return obstacles
    inner = [stage.delete_tree(path) for path in sorted(folder.iterdir())]
    return tuple(obstacle for part in inner for obstacle in part)
