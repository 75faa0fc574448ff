# SPDX-License-Identifier: Apache-2.0
"""What nothing in a repository refers to any more, and since when.

A machine works with metadata that it loaded a while ago: what that refers to must
stay for as long as it may count, whatever its age on disk. So what counts is the time
since nothing refers to a file, kept in `DIR/unreferenced.json` by each `gc` and each
`refresh`, and for each destination in a file of its own beside it. What is not of a
repository's own making is not ours to delete.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from updaterd import durable
from updaterd.core import layout
from updaterd.release.destinations.contract import Stored
from updaterd.release.repository.catalog import Catalog, products
from updaterd.release.repository.lifetimes import TIMESTAMP_DAYS
from updaterd.release.repository.metadata import Repository
from updaterd.release.workspace import Workspace

LEAST_DAYS = float(TIMESTAMP_DAYS)
"""How long a machine may go by what it loaded: until its timestamp is over."""
_JOURNAL = "unreferenced.json"
_HALF = re.compile(r"\.(.+)\.[0-9a-f]{8}\.new")  # of durable.write_file, cut short


def collectable(
    workspace: Workspace,
    repository: Repository,
    older_than: datetime,
    *,
    dry: bool = False,
) -> list[Path]:
    """Return files that nothing has referred to since a moment.

    Their age on disk counts, too: a publisher in the middle of a push has files in
    place that nothing refers to yet. Roots are never garbage. A full disk takes no
    journal: what the last one says still counts, and `note` is tried again once
    something is deleted. `dry` writes nothing.

    Raises:
        OSError: the disk cannot be read.

    Power cut: as `note`.
    """
    limit = older_than.timestamp()
    journal, names = workspace.folder / _JOURNAL, _files(workspace.public)
    since = _tried(workspace, repository, journal, names, dry=dry)
    paths = (workspace.public / name for name, at in since.items() if at <= limit)
    return sorted(path for path in paths if path.stat().st_mtime < limit)


def collectable_at(  # noqa: PLR0913 - what is there, and what may go
    workspace: Workspace,
    repository: Repository,
    address: str,
    stored: Mapping[str, Stored],
    older_than: datetime,
    *,
    dry: bool = False,
) -> list[str]:
    """Return files of a destination that nothing has referred to since a moment.

    As `collectable`, by a journal of its own: what is deleted here may be there.

    Raises:
        OSError: the disk cannot be read.

    Power cut: as `note`.
    """
    limit = older_than.timestamp()
    journal = _journal_of(workspace, address)
    since = _tried(workspace, repository, journal, stored, dry=dry)
    return sorted(
        name
        for name, at in since.items()
        if at <= limit and stored[name].changed < limit
    )


def note(workspace: Workspace, repository: Repository) -> dict[str, float]:
    """Journal what nothing refers to now; return since when, by path in `public/`.

    Raises:
        OSError: the disk refused.

    Power cut: the old journal or the new; a file that was not noted yet counts from
    the next time.
    """
    names = _files(workspace.public)
    return _note(workspace, repository, workspace.folder / _JOURNAL, names)


def note_at(
    workspace: Workspace,
    repository: Repository,
    address: str,
    stored: Iterable[str],
) -> dict[str, float]:
    """Journal what is at a destination and not referred to; return since when.

    Raises:
        OSError: the disk refused.

    Power cut: as `note`.
    """
    return _note(workspace, repository, _journal_of(workspace, address), stored)


def _journal_of(workspace: Workspace, address: str) -> Path:
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    return workspace.folder / f"unreferenced-{digest}.json"


def _tried(
    workspace: Workspace,
    repository: Repository,
    journal: Path,
    names: Iterable[str],
    *,
    dry: bool,
) -> dict[str, float]:
    """Return since when nothing refers to files, journalled if that is possible."""
    since = _since(workspace, repository, journal, names)
    if not dry:
        with suppress(OSError):
            _write(journal, since)
    return since


def _note(
    workspace: Workspace, repository: Repository, journal: Path, names: Iterable[str]
) -> dict[str, float]:
    since = _since(workspace, repository, journal, names)
    _write(journal, since)
    return since


def _write(journal: Path, since: Mapping[str, float]) -> None:
    if since != _read(journal):
        document = {"schema": 1, "since": since}
        durable.write_file(journal, json.dumps(document).encode(), mode=0o644)


def _since(
    workspace: Workspace, repository: Repository, journal: Path, names: Iterable[str]
) -> dict[str, float]:
    known = _read(journal)
    keep = referred(workspace, repository)
    # A clock that was behind must not make a file look long forgotten.
    now = max(repository.now, _signed(repository, repository.now)).timestamp()
    return {
        name: known.get(name, now)
        for name in _own(names, repository)
        if name not in keep
    }


def _signed(repository: Repository, otherwise: datetime) -> datetime:
    text = repository.timestamp.unrecognized_fields.get("x-updaterd-signed")
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return otherwise


def _read(path: Path) -> dict[str, float]:
    """Return the journal; nothing, where there is none that can be read."""
    try:
        since = json.loads(path.read_bytes())["since"]
        return {str(name): float(at) for name, at in since.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def referred(workspace: Workspace, repository: Repository) -> set[str]:
    """Return the paths in `public/` that the repository, as it is now, refers to."""
    public = workspace.public
    paths = {f"{layout.METADATA}/{layout.TIMESTAMP}"}
    for name, role in repository.roles.items():
        if name != layout.stem(layout.TIMESTAMP):
            version = role.signed.version
            paths.add(f"{layout.METADATA}/{layout.role_file(name, version)}")
    for product in products(repository):
        catalog = Catalog(repository, public, product)
        targets = [entry.target for entry in catalog.listed()]
        for entry in catalog.listed():
            manifest = catalog.manifest(entry)
            paths.update(layout.blob(blob.sha256) for blob in manifest.blobs)
        for channel in catalog.channels():
            channel_role = repository.targets(layout.channel_role(product, channel))
            targets += channel_role.targets.values()
            paths.update(layout.blob(form.sha256) for form in catalog.forms(channel))
        paths.update(
            catalog.path(target).relative_to(public).as_posix() for target in targets
        )
    return paths


def _files(public: Path) -> Iterator[str]:
    for top in layout.FOLDERS:
        for path in (public / top).rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(public).as_posix()


def _own(names: Iterable[str], repository: Repository) -> Iterator[str]:
    """Yield the paths of files that can only be of this repository's making."""
    shape = layout.files_of(repository.roles, products(repository))
    for name in names:
        folder, _, last = name.rpartition("/")
        half = _HALF.fullmatch(last)
        meant = f"{folder}/{half[1]}" if half else name
        if shape.fullmatch(meant):
            yield name
