# SPDX-License-Identifier: Apache-2.0
"""The only place where trees are deleted: never through a link, never a mount.

Everything is done by descriptor (`volumes.Descent`): a name that comes to mean
something else in the middle of it changes nothing. What cannot be deleted is told,
and does not keep the rest.
"""

from __future__ import annotations

import os
import stat

from updaterd.files import volumes
from updaterd.files.volumes import Descent, Obstacle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST = 20
"""Obstacles that are told of one tree: a person needs no more."""


def delete_tree(path: Path) -> tuple[Obstacle, ...]:
    """Delete what stands at `path`, whatever it is; return what stood in the way.

    A tree with another file system anywhere in it stays whole.

    Args:
        path: its directory is believed; itself it may be a link, which is deleted.

    Raises:
        OSError: its directory cannot be opened.

    Power cut: part of it is deleted; the next call deletes the rest.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return delete_at(directory, path.name, path)
    finally:
        os.close(directory)


def delete_at(directory: int, name: str, shown: Path) -> tuple[Obstacle, ...]:
    """Delete what is called `name` in an open directory; see `delete_tree`.

    Args:
        directory: open.
        name: what is deleted there.
        shown: its path, for people, and to find what is mounted below.

    Power cut: as `delete_tree`.
    """
    deletion = _Deletion(shown)
    try:
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            foreign = volumes.foreign(shown, directory)
            if foreign:
                return foreign[:_MOST]
            deletion.folder(directory, name)
        else:
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        deletion.note(shown, error)
    return tuple(deletion.obstacles)


class _Deletion:
    """One tree on its way out, and what stands in the way."""

    def __init__(self, shown: Path) -> None:
        self._shown = shown
        self._count = 0
        self.obstacles: list[Obstacle] = []

    def note(self, path: Path, why: OSError | str) -> None:
        """Remember what could not be deleted; of very many, the first."""
        self._count += 1
        if len(self.obstacles) < _MOST:
            if isinstance(why, OSError):
                why = why.strerror or str(why)
            self.obstacles.append(Obstacle(str(path), why))

    def folder(self, directory: int, name: str) -> None:
        """Delete a directory with all that is in it.

        Raises:
            OSError: it was moved away meanwhile, or cannot be entered.
        """
        with Descent(directory, unlock=True) as place:
            if not place.enter(name):
                self.note(self._shown, volumes.WHY)
                return
            stack = [(self._entries(place), self._count)]
            while stack:
                entries, before = stack[-1]
                inner, folder = next(entries, ("", False))
                if inner:
                    if folder and self._enter(place, inner):
                        stack.append((self._entries(place), self._count))
                    elif not folder:
                        self._remove(place, inner)
                    continue
                stack.pop()
                descriptor = place.leave()
                if self._count == before:
                    self._remove(place, descriptor, folder=True)

    def _path(self, place: Descent, name: str) -> Path:
        """Return where a name is, for people: the first step is the tree itself."""
        return self._shown.joinpath(*place.beneath(name).split("/")[1:])

    def _entries(self, place: Descent) -> Iterator[tuple[str, bool]]:
        try:
            return iter(place.entries())
        except OSError as error:
            self.note(self._shown.joinpath(*place.path.split("/")[1:]), error)
            return iter(())

    def _enter(self, place: Descent, name: str) -> bool:
        """Enter a directory that is to be emptied; tell whether that is so."""
        try:
            if place.enter(name):
                return True
            self.note(self._path(place, name), volumes.WHY)
        except NotADirectoryError:  # it has become something else meanwhile
            self._remove(place, name)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.note(self._path(place, name), error)
        return False

    def _remove(self, place: Descent, name: str, *, folder: bool = False) -> None:
        try:
            if folder:
                os.rmdir(name, dir_fd=place.fd)
            else:
                os.unlink(name, dir_fd=place.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.note(self._path(place, name), error)
