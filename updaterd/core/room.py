# SPDX-License-Identifier: Apache-2.0
"""What a tree takes on a disk, when some of its files are shared with another tree."""

from collections.abc import Container, Sequence

from updaterd.core.manifest import Entry, File

INODE = 512
"""Bytes an entry takes besides its content, where they come out of the same room."""
SPARE_INODES = 64


def tree_bytes(
    files: Sequence[Entry], *, block: int, shared: Container[str] = frozenset()
) -> int:
    """Return how many bytes making a tree takes.

    Args:
        files: its listing.
        block: of the file system: files and directories are whole blocks.
        shared: paths whose bytes are there already and will not be copied.
    """
    lengths = (
        entry.length
        for entry in files
        if isinstance(entry, File) and entry.path not in shared
    )
    blocks = sum(-(-length // block) for length in lengths)
    return (blocks + len(_folders(files))) * block + len(files) * INODE


def inodes(files: Sequence[Entry]) -> int:
    """Return how many inodes making a tree takes, with some to spare."""
    return len(files) + len(_folders(files)) + SPARE_INODES


def _folders(files: Sequence[Entry]) -> set[str]:
    folders: set[str] = set()
    before = ""
    for entry in files:
        folder = inside = entry.path.rpartition("/")[0]
        if inside == before:  # as of most
            continue
        before = inside
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    if files:
        folders.add("")
    return folders
