# SPDX-License-Identifier: Apache-2.0
"""What one release has that another has not, and who signed item."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from updaterd.core.manifest import Entry, File, Link, Manifest
from updaterd.release.repository.metadata import Repository
from updaterd.release.repository.releases import Listed, Releases


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path of which two releases say different things.

    Attributes:
        kind: "added", "removed" or "changed".
        detail: how it differs, or what it is.
        before: bytes of it, 0 where it is no file.
        after: the same.
    """

    path: str
    kind: str
    detail: str
    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Who listed a release first, and when.

    Attributes:
        keys: names of the keys, or their ids where no name is known here.
        at: None: releases did not say it then.
    """

    keys: tuple[str, ...]
    at: datetime | None


def changes(old: Manifest, new: Manifest) -> tuple[Change, ...]:
    """Return what differs in the trees, sorted by path, and beside the listings."""
    before = {entry.path: entry for entry in old.files}
    after = {entry.path: entry for entry in new.files}
    return (*_entries(before, after), *_attributes(_beside(old), _beside(new)))


def _entries(
    before: Mapping[str, Entry], after: Mapping[str, Entry]
) -> Iterator[Change]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        sizes = {"before": _length(old), "after": _length(new)}
        if old is None or new is None:
            kind = "added" if old is None else "removed"
            yield Change(path=path, kind=kind, detail=_shown(old or new), **sizes)
        else:
            yield Change(path=path, kind="changed", detail=_how(old, new), **sizes)


def _length(entry: Entry | None) -> int:
    return entry.length if isinstance(entry, File) else 0


def _shown(entry: Entry | None) -> str:
    if isinstance(entry, Link):
        return f"link to {entry.target}"
    assert entry is not None
    return f"{entry.length:,} bytes, mode {entry.mode:o}"


def _how(old: Entry, new: Entry) -> str:
    if not isinstance(old, File) or not isinstance(new, File):
        return f"{_shown(old)} -> {_shown(new)}"
    parts = []
    if old.sha256 != new.sha256:
        is_longer = old.length != new.length
        before = f"{old.length:,} -> " if is_longer else "other contents, "
        parts.append(f"{before}{new.length:,} bytes")
    if old.mode != new.mode:
        parts.append(f"mode {old.mode:o} -> {new.mode:o}")
    return ", ".join(parts)


def _beside(manifest: Manifest) -> dict[str, str]:
    """Return what a release carries beside its listing, but for times."""
    more = manifest.attributes
    return {
        **{item.path: f"folder, mode {item.mode:o}" for item in more.folders},
        **{
            item.path: f"link out of the tree, to {item.target}"
            for item in more.outside
        },
        **{item.path: f"mode {item.mode:o}" for item in more.special},
    }


def _attributes(
    before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[Change]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new:
            kind = "added" if old is None else "removed" if new is None else "changed"
            detail = f"{old} -> {new}" if old and new else str(old or new)
            yield Change(path=path, kind=kind, detail=detail)


def signed(repository: Repository, releases: Releases, entry: Listed) -> Signed:
    """Return who listed a release first, by the editions of its roles that are here."""
    digest = entry.target.hashes
    for role in releases.roles:
        for version in sorted(repository.published(role)):
            metadata: Any = repository.edition(role, version)
            target = metadata and metadata.signed.targets.get(entry.target.path)
            if target and target.hashes == digest:
                names = tuple(map(repository.key_name, metadata.signatures))
                return Signed(keys=names, at=moment(entry))
    return Signed(keys=(), at=moment(entry))


def moment(entry: Listed) -> datetime | None:
    """Return when a release was listed first; None: it does not say."""
    try:
        return datetime.fromtimestamp(entry.at, UTC) if entry.at else None
    except (OverflowError, ValueError, OSError):
        return None
