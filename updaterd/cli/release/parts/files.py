# SPDX-License-Identifier: Apache-2.0
"""Files that commands are told to write."""

import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from updaterd.errors import BrokenError


def writable(path: Path) -> Path:
    """Return where a file is to be written, before any work is done for it.

    What is there is replaced as a whole, which only a file survives: a link leads to
    the one that is meant.

    Raises:
        OSError: it cannot be looked at.
        _unfit: no file can be written there.
    """
    target = path.resolve() if path.is_symlink() else path
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not target.parent.is_dir():
            raise _unfit(
                f"{path}: there is no directory {target.parent}",
                f"make it (mkdir -p {target.parent}), or name another file",
            ) from None
        return target
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise _unfit(f"{path} is {kind}", "name a file to write")
    return target


def _unfit(cause: str, do: str) -> "BrokenError":
    from updaterd.errors import BrokenError

    return BrokenError(cause, means="nothing was written", do=do, code="output_refused")
