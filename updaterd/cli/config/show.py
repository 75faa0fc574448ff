# SPDX-License-Identifier: Apache-2.0
"""`updaterd config show`: each value, and which file says it."""

import argparse
import json
from pathlib import Path

from updaterd import config
from updaterd.cli.parts.options import config_of, directories_from
from updaterd.config import Merged, Sources
from updaterd.config.fragments import Key
from updaterd.core.text import printable
from updaterd.files import ownership

_HIDDEN = "(not shown)"


def show(arguments: argparse.Namespace) -> int:
    """Print what the files say.

    Raises:
        ConfigError: they cannot be used.
    """
    sources, merged = _read(arguments)
    rows = [(".".join(key), _value(merged, key), merged.origins[key])
            for key in sorted(merged.origins)]  # fmt: skip
    if arguments.json:
        document = {
            "schema": 1,
            "values": [
                {"key": key, "value": value, "file": str(file)}
                for key, value, file in rows
            ],
            "files": [str(file) for file in sources.files],
            "replaced": [
                {"file": str(file), "by": str(by)}
                for file, by in sorted(sources.replaced.items())
            ],
        }
        print(json.dumps(document, default=str))
        return 0
    at = None
    for key, value, file in sorted(rows, key=lambda row: sources.files.index(row[2])):
        if file != at:
            print(f"# {file}" if at is None else f"\n# {file}")
            at = file
        print(printable(f"{key} = {json.dumps(value, default=str)}"))
    for file, by in sorted(sources.replaced.items()):
        print(f"\n# {file}: not read, {by} has its name")
    return 0


def files(arguments: argparse.Namespace) -> list[str]:
    """Return the files that are read, weakest first, and those that are not."""
    sources = config.sources(config_of(arguments))
    return [
        *map(str, sources.files),
        *(f"{by} instead of {file}" for file, by in sorted(sources.replaced.items())),
    ]


def with_file(arguments: argparse.Namespace, finding: str) -> str:
    """Return a finding about a key with the file that says it, where there are many."""
    try:
        sources, merged = _read(arguments)
    except config.ConfigError:
        return finding  # and this is why
    key = finding.split(maxsplit=1)[0].rstrip(":") if finding.strip() else ""
    file = merged.origin(key) if key and len(sources.files) > 1 else None
    return f"{finding.rstrip('.')} (in {file})" if file else finding


def _read(arguments: argparse.Namespace) -> tuple[Sources, Merged]:
    """Read the files that the arguments mean.

    Raises:
        ConfigError: they cannot be used.
    """
    sources = config.sources(config_of(arguments))
    state = Path(directories_from(arguments).state)
    return sources, config.merged(sources, ownership.owners(state))


def _value(merged: Merged, key: Key) -> object:
    if len(key) > 2 and key[1] == "headers":
        return _HIDDEN
    value: object = merged.values
    for name in key:
        assert isinstance(value, dict)
        value = value[name]
    return value
