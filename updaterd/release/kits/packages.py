# SPDX-License-Identifier: Apache-2.0
"""What a package holds, and which ones the system's own tools know of.

Part of the installer (`installer.py`): only Python's standard library, and no imports
of ours.
"""

import subprocess
import tarfile


def read(archive: tarfile.TarFile, folder: str) -> dict[str, bytes]:
    """Return the files of a folder of an archive."""
    files = {}
    for info in archive:
        path = info.name.removeprefix("./")
        source = archive.extractfile(info) if info.isfile() else None
        if path.startswith(folder) and source is not None:
            files[path.removeprefix(folder)] = source.read()
    return files


def member(data: bytes) -> bytes:
    """Return the files of a Debian package (deb(5)), as xz has them; b"": none."""
    at = 8
    while at + 60 <= len(data):
        head = data[at : at + 60]
        name, size = head[:16].strip(), int(head[48:58])
        if name.startswith(b"data.tar.xz"):
            return data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return b""


def run(*words: str) -> int:
    """Run a program and return its exit code."""
    return subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode


def is_installed(name: str, kind: str) -> bool:
    """Tell whether a package is installed here."""
    ask = {
        "deb": ("dpkg-query", "--show", "--showformat", "${db:Status-Status}", name),
        "rpm": ("rpm", "-q", name),
    }[kind]
    done = subprocess.run(ask, check=False, capture_output=True, text=True)
    return done.returncode == 0 and (kind == "rpm" or done.stdout == "installed")


def has_updaterd(kind: str, least: str) -> bool:
    """Tell whether an updaterd is installed, at least this version of a .deb."""
    if not is_installed("updaterd", kind) or kind == "rpm":
        return is_installed("updaterd", kind)
    show = ("dpkg-query", "--show", "--showformat", "${Version}", "updaterd")
    version = subprocess.run(show, check=False, capture_output=True, text=True).stdout
    return run("dpkg", "--compare-versions", version, "ge", least) == 0
