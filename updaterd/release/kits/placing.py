# SPDX-License-Identifier: Apache-2.0
"""How a kit's files get to their places in a person's home, whole or not at all.

Part of the installer (`installer.py`): only Python's standard library, and no imports
of ours.
"""

import os
import sys
from pathlib import Path

_PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def venv(fresh: Path, target: Path) -> None:
    """Make an environment that has updaterd's libraries and nothing else."""
    python = os.path.realpath(sys.executable)
    (fresh / "bin").mkdir()
    os.symlink(python, fresh / "bin/python")
    write(
        fresh / "pyvenv.cfg",
        f"home = {os.path.dirname(python)}\n"
        "include-system-site-packages = false\n".encode(),
    )
    for version in _PYTHONS:
        packages = fresh / f"lib/python{version}/site-packages"
        write(packages / "updaterd.pth", f"{target}/site\n".encode())


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file whole: who looks finds the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), mode)
    os.rename(fresh, path)


def link(path: Path, target: str) -> None:
    """Make a link, or let it lead elsewhere, in one step."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    os.symlink(target, fresh)
    os.rename(fresh, path)


def prune(folder: Path, top: Path) -> None:
    """Remove folders that are empty now, up to a person's own."""
    while folder != top and folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
