# SPDX-License-Identifier: Apache-2.0
"""python-tuf's client, tamed: our fetcher below it, a disk that keeps promises.

The only module that touches python-tuf's private members; `pyproject.toml` pins the
major version for that. Seven of them, each with a test that would miss it:
`_trusted_set` (which root and versions are trusted now), its `reference_time` (the
clock is ours, not the machine's), `_persist_file` (python-tuf does not fsync: a
power cut would forget rollback protection) and `_update_root_symlink` (it removes
the link before it makes the new one), `_load_root` (only the newest root tells whose
word on the time counts), `_load_local_metadata` and `_download_metadata` (python-tuf
drops the signatures: who signed is part of what is remembered).
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    Metadata,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.metadata import Role as Authorised
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from updaterd import durable
from updaterd.core import layout
from updaterd.core.announcement import MAX_SNAPSHOT, MAX_TIMESTAMP
from updaterd.core.words import Speakers
from updaterd.errors import UpdaterError
from updaterd.net import Fetcher, NotFoundError
from updaterd.trust.roles import Role

LIMITS = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=32,
    root_max_length=64 * 1024,
    timestamp_max_length=MAX_TIMESTAMP,
    snapshot_max_length=MAX_SNAPSHOT,
    targets_max_length=512 * 1024,
)
"""Bytes; python-tuf's defaults are generous enough to be a nuisance."""


class Source(FetcherInterface):
    """Where python-tuf gets its files: what was pushed first, then the repository.

    Args:
        fetcher: asks the network.
        base: address of `metadata/`, with its final slash.
        files: served from memory, by name; each one once.
        probe: ask for newer roots; without it, the one at hand counts as newest.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        base: str,
        *,
        files: dict[str, bytes] | None = None,
        probe: bool = True,
    ) -> None:
        self._fetcher = fetcher
        self._base = base
        self._files = dict(files or {})
        self._probe = probe
        self.name = ""
        self.probed = False

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return the file at `url`, or the pushed one that stands for it.

        Raises:
            DownloadError: it cannot be had; the cause is one of our errors.
            DownloadHTTPError: there is none, or it was not asked for.
            DownloadLengthMismatchError: it is too large.
        """
        self.name = url.removeprefix(self._base)
        kind = self.name.split(".", 1)[-1]  # consistent snapshots: N.snapshot.json
        data = self._files.pop(self.name, None) or self._files.pop(kind, None)
        if data is not None:
            if len(data) > max_length:
                raise exceptions.DownloadLengthMismatchError("pushed file too large")
            return data
        if kind == layout.ROOT and not self._probe:
            raise exceptions.DownloadHTTPError("not asked", 404)
        try:
            data = self._fetcher.get(url, limit=max_length)
        except NotFoundError as error:
            self.probed = self.probed or kind == layout.ROOT
            raise exceptions.DownloadHTTPError(str(error), error.status) from None
        except UpdaterError as error:
            raise exceptions.DownloadError(str(error)) from error
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Refuse: everything goes through `download_bytes`, which has a limit."""
        raise NotImplementedError(url)


class Engine(Updater):
    """One refresh; python-tuf's rule is a new object for each.

    Args:
        cache: directory that keeps what was verified.
        bootstrap: the root this machine was given.
        source: where files come from.
        now: returns what time it is, given who may speak for the timestamp; None:
            what the machine's clock says.

    Raises:
        RepositoryError: `bootstrap` is not a usable root.
        OSError: the cache cannot be written.
    """

    _is_ready = False

    def __init__(  # noqa: PLR0913 # Updater's own arguments
        self,
        cache: Path,
        bootstrap: bytes,
        *,
        url: str,
        source: Source,
        now: Callable[[Speakers], datetime | None],
        targets_dir: str | None = None,
        targets_url: str | None = None,
    ) -> None:
        (cache / "root_history").mkdir(mode=0o700, exist_ok=True)
        self._now = now
        self._raw: dict[str, bytes] = {}
        super().__init__(
            str(cache),
            url,
            targets_dir,
            targets_url,
            fetcher=source,
            config=LIMITS,
            bootstrap=bootstrap,
        )
        self._is_ready = True

    @property
    def root(self) -> Root:
        """Return the newest root that is trusted."""
        return self._trusted_set.root

    @property
    def timestamp(self) -> Timestamp:
        """Return the timestamp; only after a refresh."""
        return self._trusted_set.timestamp

    @property
    def snapshot(self) -> Snapshot:
        """Return the snapshot; only after a refresh."""
        return self._trusted_set.snapshot

    def role(self, name: str) -> Role | None:
        """Return the role as trusted now; None when it was not needed so far."""
        signed = self._trusted_set.get(name)
        if signed is None:
            return None
        return Role(name=name, version=signed.version, expires=signed.expires)

    def roles(self) -> tuple[Role, ...]:
        """Return all roles loaded so far, in the order they were verified."""
        names = list(self._trusted_set._trusted_set)  # noqa: SLF001 # see module
        return tuple(role for role in map(self.role, names) if role is not None)

    def speakers(self) -> Mapping[str, Speakers]:
        """Return who may speak for each role now."""
        roles: dict[str, Authorised] = dict(self.root.roles)
        targets = self._targets()
        if targets and targets.delegations and targets.delegations.roles:
            roles |= targets.delegations.roles
        return {
            name: Speakers(keys=frozenset(role.keyids), threshold=role.threshold)
            for name, role in roles.items()
        }

    def signers(self, role: str) -> frozenset[str]:
        """Return the ids of the keys that signed a role that was loaded."""
        metadata: Metadata[Any] = Metadata.from_bytes(self._raw[role])
        delegator = self.root if role in TOP_LEVEL_ROLE_NAMES else self._targets()
        if delegator is None:
            return frozenset()
        result = delegator.get_verification_result(
            role, metadata.signed_bytes, metadata.signatures
        )
        return frozenset(result.signed)

    def lists(self, role: str, path: str) -> bool:
        """Tell whether a role that was loaded has the target."""
        signed = self._trusted_set.get(role)
        return isinstance(signed, Targets) and path in signed.targets

    def listing(self, role: str) -> tuple[str, ...]:
        """Return the targets of a role that was loaded; none of one that was not."""
        signed = self._trusted_set.get(role)
        return tuple(signed.targets) if isinstance(signed, Targets) else ()

    def _targets(self) -> Targets | None:
        signed = self._trusted_set.get(Targets.type)
        return signed if isinstance(signed, Targets) else None

    def _load_root(self) -> None:
        super()._load_root()
        role = self.root.roles[Timestamp.type]
        speakers = Speakers(keys=frozenset(role.keyids), threshold=role.threshold)
        time = self._now(speakers)
        if time is not None:
            self._trusted_set.reference_time = time

    def _load_local_metadata(self, rolename: str) -> bytes:
        self._raw[rolename] = data = super()._load_local_metadata(rolename)
        return data

    def _download_metadata(
        self, rolename: str, length: int, version: int | None = None
    ) -> bytes:
        self._raw[rolename] = data = super()._download_metadata(
            rolename, length, version
        )
        return data

    def _persist_file(self, filename: str, data: bytes) -> None:
        """Write it so that a power cut leaves the old file or the new.

        Power cut: either one is a verified file; rollback protection holds.
        """
        path = Path(filename)
        try:
            if path.read_bytes() == data:
                return
        except OSError:
            pass
        durable.write_file(path, data)

    def _update_root_symlink(self) -> None:
        """Point root.json at the newest root, for people and tools: we never read it.

        Not before the roots were walked, or each refresh would point it at the
        bootstrap root and back: four syncs for nothing.

        Power cut: the old link or the new.
        """
        if not self._is_ready:
            return
        link = Path(self._dir, layout.ROOT)
        target = Path("root_history", layout.role_file("root", self.root.version))
        if not link.is_symlink() or link.readlink() != target:
            durable.point(link, target)
