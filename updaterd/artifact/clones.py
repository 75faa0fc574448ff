# SPDX-License-Identifier: Apache-2.0
"""Whether files can share their bytes on this disk: trying is what tells.

A file system may know clones and be made without them, a mount may lie between.
"""

import fcntl
import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from updaterd.artifact.apply.old_files import look_up
from updaterd.artifact.destination import FICLONE
from updaterd.artifact.folders import Folders
from updaterd.core.tree import Entry, File


def can_clone(tree: Path, files: Iterable[Entry], into: Path) -> bool:
    """Tell whether a file of a tree can be cloned into a directory.

    Args:
        tree: where the tree is.
        files: its listing; the first file that is there and not empty is tried.
        into: an existing directory; nothing is left in it.
    """
    try:
        with Folders(tree) as folders:
            for entry in files:
                if isinstance(entry, File) and entry.length:
                    opened = look_up(folders, entry)
                    if opened is not None:
                        return _cloned(opened[0], into)
    except OSError:
        return False
    return False


def _cloned(source: int, into: Path) -> bool:
    try:
        clone = os.open(into, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        with closing(os.fdopen(clone, "wb")) as file:
            fcntl.ioctl(file.fileno(), FICLONE, source)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(source)
