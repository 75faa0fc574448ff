# SPDX-License-Identifier: Apache-2.0
"""The files of a configuration, merged: which there are, and who said what.

From the weakest word to the strongest:

1. packages' fragments, `/usr/lib/updaterd/conf.d/*.toml`, then `/run/updaterd.conf.d`;
2. the owner's `updaterd.toml`, which need not be there when a fragment is;
3. the owner's fragments, `conf.d/*.toml` beside it.

In a folder files count in the order of their names. A stronger file adds tables and
replaces values; a list is one value. A fragment of the same name in a stronger folder
stands for the weaker one, whole: an empty one, or a link to /dev/null, takes it away.
Two packages' files of one folder may not say different things of one key: nobody but
the owner may overrule a publisher (docs/decisions/0051).
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from updaterd.config.errors import ConfigError
from updaterd.config.places import FRAGMENTS
from updaterd.core.dataclass import dataclass

_NOTHING = "/dev/null"

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of one configuration.

    Attributes:
        layers: those that count, by folder, weakest first; the last two are the
            owner's.
        replaced: those that one of the same name stands for, and that one.
    """

    layers: tuple[tuple[Path, ...], ...]
    replaced: Mapping[Path, Path]

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files that are read, weakest first."""
        return tuple(file for layer in self.layers for file in layer)


@dataclass(frozen=True, slots=True)
class Merged:
    """What all files say together.

    Attributes:
        values: the document.
        origins: who said each value that is not a table.
    """

    values: dict[str, object]
    origins: Mapping[Key, Path]

    def origin(self, dotted: str) -> Path | None:
        """Return the file that said a key, or the first key below it; None: nobody."""
        for key, file in self.origins.items():
            if f"{'.'.join(key)}.".startswith(f"{dotted}."):
                return file
        return None


def find(file: Path, vendors: tuple[Path, ...]) -> Sources:
    """Return the files that make a configuration.

    Args:
        file: the owner's.
        vendors: folders of fragments, weakest first.

    Raises:
        ConfigError: there is none at all, or a folder cannot be read.
    """
    folders = [*vendors, file.parent / FRAGMENTS]
    listed = [_listed(folder) for folder in folders]
    replaced: dict[Path, Path] = {}
    layers = []
    for number, names in enumerate(listed):
        stands = []
        for name in sorted(names):
            later = range(number + 1, len(listed))
            over = next(
                (folders[n] for n in reversed(later) if name in listed[n]), None
            )
            path = folders[number] / name
            if over is not None:
                replaced[path] = over / name
            elif os.path.realpath(path) != _NOTHING:
                stands.append(path)
        layers.append(tuple(stands))
    if os.path.lexists(file) or not any(layers):  # what is not there is told, too
        layers.insert(-1, (file,))
    else:
        layers.insert(-1, ())
    return Sources(tuple(layers), replaced)


def _listed(folder: Path) -> frozenset[str]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise ConfigError(f"cannot read {folder}: {error.strerror}") from error
    return frozenset(
        name for name in names if name.endswith(".toml") and not name.startswith(".")
    )


def merge(sources: Sources) -> Merged:
    """Read all files and merge them.

    Raises:
        ConfigError: one cannot be read, or two packages contradict each other.
    """
    values: dict[str, object] = {}
    origins: dict[Key, Path] = {}
    vendors = len(sources.layers) - 2
    for number, layer in enumerate(sources.layers):
        earlier: dict[Key, Path] = {}
        for file in layer:
            document = _read(file)
            _add(
                values,
                document,
                (),
                file,
                origins,
                earlier if number < vendors else None,
            )
    return Merged(values, origins)


def _add(  # noqa: PLR0913, PLR0917 - a walk down two trees at once
    into: dict[str, object],
    more: Mapping[str, object],
    at: Key,
    file: Path,
    origins: dict[Key, Path],
    earlier: dict[Key, Path] | None,
) -> None:
    """Merge a document into what weaker files said.

    Raises:
        ConfigError: a file of the same folder said otherwise.
    """
    for name, value in more.items():
        key, old = (*at, name), into.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            _add(old, value, key, file, origins, earlier)
            continue
        other = _first(earlier, key) if earlier is not None else None
        if other is not None and old != value:
            raise ConfigError(
                f"{file} and {other} say different things of {'.'.join(key)}",
                do="keep one of the two, or say it in a file of your own, of the same "
                "name as one of them; each kit has a daemon of its own",
            )
        for stale in [k for k in origins if k[: len(key)] == key]:
            del origins[stale]
        if isinstance(value, dict):
            inner: dict[str, object] = {}
            into[name] = inner
            origins[key] = file
            _add(inner, value, key, file, origins, earlier)
            if value:
                del origins[key]
        else:
            into[name] = value
            origins[key] = file
        if earlier is not None:
            earlier[key] = file


def _first(earlier: Mapping[Key, Path], key: Key) -> Path | None:
    """Return who said a key, or something below it."""
    return next((file for k, file in earlier.items() if k[: len(key)] == key), None)


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}",
            do="make the file, name another by --config, or make it readable; then "
            "`updaterd config check`",
        ) from error
