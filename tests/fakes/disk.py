# SPDX-License-Identifier: Apache-2.0
"""A disk whose power fails before a chosen step: stands where durable sees `os`."""

import os
from pathlib import Path

from updaterd import durable

_STEPS = {"symlink", "replace", "rename", "fsync", "fdatasync", "link", "mkdir"}
_LIBC_STEPS = {"syncfs", "renameat2"}


class PowerCut(BaseException):
    """Not an Exception, so no handler in the program can survive it."""


class Disk:
    """Logs every step; at `cut_before` the power is gone, for that step and later."""

    def __init__(self, cut_before: int) -> None:
        self.cut_before = cut_before
        self.power_was_cut = False
        self.log: list[str] = []
        self.libc = _Libc(self, durable._libc)

    def step(self, name: str) -> None:
        if self.power_was_cut or len(self.log) + 1 == self.cut_before:
            self.power_was_cut = True
            raise PowerCut
        self.log.append(name)

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in _STEPS:
            return real

        def step(*args: object, **kwargs: object) -> object:
            self.step(name)
            return real(*args, **kwargs)

        return step


class _Libc:
    def __init__(self, disk: Disk, real: object) -> None:
        self._disk = disk
        self._real = real

    def __getattr__(self, name: str) -> object:
        real = getattr(self._real, name)
        if name not in _LIBC_STEPS:
            return real

        def step(*args: object) -> object:
            self._disk.step(name)
            return real(*args)

        return step


def install_root(path: Path, *, running: str, staged: str = "") -> Path:
    """Make an install root with releases, of which `running` runs."""
    for version in (running, *([staged] if staged else [])):
        release = path / "releases" / version
        release.mkdir(parents=True)
        (release / "VERSION").write_text(version)
    (path / "current").symlink_to(Path("releases", running))
    return path


class Dying:
    """Lets `remaining` files be written, then the machine is gone."""

    def __init__(self, remaining: int):
        self.remaining = remaining
        self.write = durable.write_file

    def __call__(self, *arguments, **more):
        if self.remaining == 0:
            raise OSError(5, "the machine is gone")
        self.remaining -= 1
        self.write(*arguments, **more)
