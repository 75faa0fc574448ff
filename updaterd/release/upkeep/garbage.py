# SPDX-License-Identifier: Apache-2.0
"""What nothing in a repository refers to any more, and since when.

A machine works with metadata that it loaded a while ago: what that refers to must
stay for as long as it may count, whatever its age on disk. So what counts is the time
since nothing refers to a file, kept in `DIR/unreferenced.json` by each `gc` and each
`refresh`. What is not of a repository's own making is not ours to delete.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from updaterd import durable
from updaterd.core import layout
from updaterd.release.repository.catalog import Catalog, products
from updaterd.release.repository.lifetimes import TIMESTAMP_DAYS
from updaterd.release.repository.metadata import Repository
from updaterd.release.workspace import Workspace

LEAST_DAYS = float(TIMESTAMP_DAYS)
"""How long a machine may go by what it loaded: until its timestamp is over."""
_JOURNAL = "unreferenced.json"
_HALF = re.compile(r"\.(.+)\.[0-9a-f]{8}\.new")  # of durable.write_file, cut short


def collectable(
    workspace: Workspace, repository: Repository, older_than: datetime
) -> list[Path]:
    """Return files that nothing has referred to since a moment.

    Their age on disk counts, too: a publisher in the middle of a push has files in
    place that nothing refers to yet. Roots are never garbage.

    Raises:
        OSError: the disk refused.

    Power cut: as `note`.
    """
    limit = older_than.timestamp()
    since = note(workspace, repository)
    paths = (workspace.public / name for name, at in since.items() if at <= limit)
    return sorted(path for path in paths if path.stat().st_mtime < limit)


def note(workspace: Workspace, repository: Repository) -> dict[str, float]:
    """Journal what nothing refers to now; return since when, by path in `public/`.

    Raises:
        OSError: the disk refused.

    Power cut: the old journal or the new; a file that was not noted yet counts from
    the next time.
    """
    path = workspace.folder / _JOURNAL
    known = _read(path)
    referred = _referred(workspace, repository)
    # A clock that was behind must not make a file look long forgotten.
    now = max(repository.now, _signed(repository, repository.now)).timestamp()
    since = {
        name: known.get(name, now)
        for name in _own(workspace.public, repository)
        if workspace.public / name not in referred
    }
    if since != known:
        document = {"schema": 1, "since": since}
        durable.write_file(path, json.dumps(document).encode(), mode=0o644)
    return since


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


def _referred(workspace: Workspace, repository: Repository) -> set[Path]:
    """Return what the repository, as it is now, refers to."""
    metadata, public = workspace.metadata, workspace.public
    referred = {metadata / layout.TIMESTAMP}
    for name, role in repository.roles.items():
        referred.add(metadata / layout.role_file(name, role.signed.version))
    for product in products(repository):
        catalog = Catalog(repository, public, product)
        for entry in catalog.listed():
            referred.add(catalog.path(entry.target))
            manifest = catalog.manifest(entry)
            referred.update(workspace.blob(blob.sha256) for blob in manifest.blobs)
        for channel in catalog.channels():
            channel_role = repository.targets(layout.channel_role(product, channel))
            referred.update(
                catalog.path(target) for target in channel_role.targets.values()
            )
    return referred


def _own(public: Path, repository: Repository) -> Iterator[str]:
    """Yield the paths of files that can only be of this repository's making."""
    shape = layout.files_of(repository.roles, products(repository))
    for top in layout.FOLDERS:
        for path in (public / top).rglob("*"):
            half = _HALF.fullmatch(path.name)
            meant = path.with_name(half[1]) if half else path
            match = shape.fullmatch(meant.relative_to(public).as_posix())
            if match and path.is_file() and not path.is_symlink():
                yield path.relative_to(public).as_posix()
