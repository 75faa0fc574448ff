# SPDX-License-Identifier: Apache-2.0
"""What a directory tree is, as values that can be compared."""

import hashlib
import os
import stat
from pathlib import Path


def snapshot(root: Path) -> dict[str, tuple]:
    """Return every file, link and directory below `root`, contents and modes.

    Modes are those that a bundle keeps: executable or not (docs/formats.md).
    """
    entries = {}
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(folder, name)
            info = path.lstat()
            relative = str(path.relative_to(root))
            if stat.S_ISLNK(info.st_mode):
                entries[relative] = ("link", str(path.readlink()))
            elif stat.S_ISREG(info.st_mode):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                entries[relative] = ("file", digest, stat.S_IMODE(info.st_mode))
            elif not stat.S_ISDIR(info.st_mode):
                entries[relative] = ("special", info.st_mode)
    return entries


def make_tree(root: Path, files: dict[str, bytes | str]) -> Path:
    """Make files (bytes; executable below `bin/`) and symlinks (`-> target`)."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
            continue
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(data)
        path.chmod(0o755 if name.startswith("bin/") else 0o644)
    return root
