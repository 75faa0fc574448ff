# SPDX-License-Identifier: Apache-2.0
"""The configuration: TOML files into frozen settings, every mistake named at once.

`fragments.py` says which files there are and which of them is stronger. A key that is
not known is an error: a typo in a safety setting must not pass for a default.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from updaterd.config import fragments
from updaterd.config.errors import ConfigError, UnsafeConfigError
from updaterd.config.fragments import Merged, Sources
from updaterd.config.places import (
    FRAGMENTS,
    chosen,
    directories,
    find_config,
    starting,
    system_name,
    vendors,
)
from updaterd.config.tables import read
from updaterd.core.settings import Settings
from updaterd.files import ownership

__all__ = [
    "ConfigError",
    "Merged",
    "Sources",
    "UnsafeConfigError",
    "chosen",
    "directories",
    "load",
    "merged",
    "read",
    "sources",
    "starting",
    "system_name",
]


def sources(file: Path | None = None) -> Sources:
    """Return the files that make the configuration of this machine.

    Args:
        file: the owner's; None looks in the usual places.

    Raises:
        ConfigError: there is none.
    """
    path = file or find_config()
    return fragments.find(path, vendors(path))


def merged(files: Sources, trusted: frozenset[int]) -> Merged:
    """Return what the files say, which nobody else may write.

    Raises:
        ConfigError: they cannot be used.
        UnsafeConfigError: others could change one of them.
    """
    paths = [file.absolute() for file in files.files]
    folders = {file.parent for file in paths if file.parent.suffix == ".d"}
    _require_ours([*paths, *sorted(folders)], trusted)
    return fragments.merge(files)


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
    own = (path.parent / FRAGMENTS).absolute()
    if os.path.isdir(own):  # who may write there decides, also while it is empty
        _require_ours([own], trusted)
    origin = fragments.find(path, vendors(path))
    document = merged(origin, trusted)
    try:
        settings = read(document.values, where)
    except ConfigError as error:
        lines = _with_files(error.details, document, origin)
        raise ConfigError(error.cause, lines) from None
    _require_ours(_named(settings), trusted)
    if demo:
        from dataclasses import replace  # noqa: PLC0415 - only in demos

        settings = replace(settings, demo=True)
    return settings


def _with_files(mistakes: Iterable[str], document: Merged, files: Sources) -> list[str]:
    """Return mistakes with the files in which they are, where there are several."""
    lines = []
    for line in mistakes:
        file = document.origin(line.split(" ", 1)[0])
        several = len(files.files) > 1 or not files.layers[-2]
        lines.append(f"{line} (in {file})" if file and several else line)
    return lines


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
    speaking = settings.feed, settings.trust, settings.reports, settings.enrolment
    for part in speaking:
        network = part.network
        for file in (network.ca_file, network.headers_file):
            if file is not None:
                yield file
