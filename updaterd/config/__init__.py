# SPDX-License-Identifier: Apache-2.0
"""The configuration: TOML files into frozen settings, every mistake named at once.

`updaterd.toml`, then `conf.d/*.toml` beside it in the order of their names; a later
file adds tables and replaces values. A key that is not known is an error: a typo in
a safety setting must not pass for a default.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath

from updaterd.config.errors import ConfigError, UnsafeConfigError
from updaterd.config.places import directories, find_config, system_name
from updaterd.config.tables import read
from updaterd.core.settings import Settings
from updaterd.files import ownership

__all__ = [
    "ConfigError",
    "UnsafeConfigError",
    "directories",
    "load",
    "read",
    "system_name",
]


def _merge(into: dict[str, object], more: Mapping[str, object]) -> None:
    for key, value in more.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        else:
            into[key] = value


def _read_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def load(
    file: Path | None = None,
    *,
    state: Path | None = None,
    cache: Path | None = None,
    runtime: Path | None = None,
    demo: bool = False,
) -> Settings:
    """Return the settings of this machine.

    Args:
        file: the configuration; None looks in the usual places.
        state: directory of the database and the trust cache.
        cache: directory of partial downloads.
        runtime: directory of status.json and the locks.
        demo: whether a repository of the demo profile is acceptable.

    Raises:
        ConfigError: no file, or one that cannot be used.
        UnsafeConfigError: one that others could change.
    """
    path = file or find_config()
    where = directories(path, state=state, cache=cache, runtime=runtime)
    trusted = ownership.owners(where.state)
    parts = sorted(path.parent.glob("conf.d/*.toml"))
    files = [path, path.parent / "conf.d", *parts]
    _require_ours([file.absolute() for file in files], trusted)
    document = _read_file(path)
    for part in parts:
        _merge(document, _read_file(part))
    settings = read(document, where)
    _require_ours(_named(settings), trusted)
    if demo:
        from dataclasses import replace  # noqa: PLC0415 - only in demos

        settings = replace(settings, demo=True)
    return settings


def _require_ours(files: Iterable[PurePath], trusted: frozenset[int]) -> None:
    """Check that nobody else decides what the configuration says.

    Raises:
        UnsafeConfigError: others could change one of the files.
    """
    mistakes = [fault for file in files if (fault := ownership.fault(file, trusted))]
    if mistakes:
        raise UnsafeConfigError(list(dict.fromkeys(mistakes)))


def _named(settings: Settings) -> Iterator[PurePath]:
    """Yield the files of which the configuration says that they are believed."""
    yield settings.trust.root
    for part in (settings.feed, settings.trust, settings.reports):
        network = part.network
        for file in (network.ca_file, network.headers_file):
            if file is not None:
                yield file
