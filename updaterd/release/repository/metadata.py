# SPDX-License-Identifier: Apache-2.0
"""The signed files of a repository: changed, signed, swapped in (`published` reads).

Built on `tuf.api.metadata`; `tuf.repository` is declared unstable. One mutable file,
`timestamp.json`, decides what the repository says; everything it leads to has its
version in its name and is written before it. So a publisher that dies half-way has
published nothing, and the next one steps over what it left.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Signed,
    Targets,
)
from tuf.api.serialization.json import JSONSerializer

from updaterd import durable
from updaterd.core import layout
from updaterd.errors import TransientError
from updaterd.release.keys.keyring import Keyring
from updaterd.release.repository import signing
from updaterd.release.repository.lifetimes import days_of
from updaterd.release.repository.published import Published

_COMPACT = JSONSerializer(compact=True)

_TOP = frozenset({"root", "targets", "snapshot", "timestamp"})


class Repository(Published):
    """The metadata as published now, and the changes made to it so far.

    Args:
        folder: `public/metadata`.
        keyring: keys that are here.
        now: time of this publication.
        founding: there is nothing to read yet.

    Raises:
        BrokenError: the files cannot be read or contradict each other.
    """

    def __init__(
        self,
        folder: Path,
        keyring: Keyring,
        *,
        now: datetime,
        founding: bool = False,
    ) -> None:
        self._keyring = keyring
        self._now = now.replace(microsecond=0)
        self._dirty: set[str] = set()
        self._begun: set[str] = set()
        self._adopted: set[str] = set()
        self.is_draft = False
        super().__init__(folder, founding=founding)

    @classmethod
    def detached(
        cls,
        folder: Path,
        keyring: Keyring,
        *,
        now: datetime,
        roles: Mapping[str, Metadata[Any]],
    ) -> Self:
        """Return roles from elsewhere, to be changed and signed, never committed.

        Args:
            folder: an empty directory.
            keyring: keys that are here.
            now: time of signing.
            roles: `root`, `targets` and those to change.
        """
        repository = cls(folder, keyring, now=now, founding=True)
        repository._roles.update(roles)
        repository.is_draft = True
        return repository

    @property
    def now(self) -> datetime:
        """Return the time of this publication."""
        return self._now

    @property
    def changed(self) -> tuple[str, ...]:
        """Return the roles that a commit would sign now, in the order it does."""
        self._heal()
        if not self._dirty:
            return ()
        signed = self._dirty - self._adopted
        first = [name for name in ("root", "targets") if name in signed]
        last = ["snapshot", "timestamp"] if self._moves_snapshot() else ["timestamp"]
        return (*first, *sorted(signed - _TOP), *last)

    def _heal(self) -> None:
        """Take up what a root came without: its commit died."""
        for role in ("targets", "snapshot", "timestamp"):
            if not self._backed(role):
                self._dirty.add(role)

    def _moves_snapshot(self) -> bool:
        return any(role not in {"root", "timestamp"} for role in self._dirty)

    @property
    def edited(self) -> tuple[str, ...]:
        """Return the roles that were changed, sorted."""
        return tuple(sorted(self._dirty))

    def begin(self, role: str, signed: Signed) -> None:
        """Enter a role that is new."""
        self._roles[role] = Metadata(signed)
        self._dirty.add(role)
        self._begun.add(role)

    def adopt(self, role: str, metadata: Metadata[Any]) -> None:
        """Take a role that was signed elsewhere, version and expiry as they are."""
        self._roles[role] = metadata
        self._dirty.add(role)
        self._adopted.add(role)

    def touch(self, role: str) -> None:
        """Say that a role has changed, or is to be signed again."""
        self._dirty.add(role)

    @contextmanager
    def edit(self, role: str) -> Iterator[Targets]:
        """Yield a targets role to be changed."""
        signed = self.targets(role)
        yield signed
        self._dirty.add(role)

    def sign(self, role: str, metadata: Metadata[Any], *, enough: bool = True) -> None:
        """Sign with the role's keys that are here, no more than it needs.

        A root is signed with all of them, and with the keys of the root before it.

        Args:
            role: name of the role.
            metadata: its new edition; signatures it carries are dropped.
            enough: insist on the threshold.

        Raises:
            MissingKeysError: fewer than its threshold are here.
        """
        keyids, threshold = self.authority(role)
        if role == "root":
            keyids = list(dict.fromkeys([*keyids, *self.root_before]))
        most = None if role == "root" else threshold
        signing.sign(metadata, role, keyids, self._keyring, most=most)
        if enough:
            self._require(role, len(metadata.signatures))

    def require_keys(self, *roles: str) -> None:
        """Make sure that these roles could be signed here; opens their keys.

        Raises:
            MissingKeysError: fewer than a role's threshold are here.
            BrokenError: one cannot be opened.
        """
        for role in roles:
            keyids, threshold = self.authority(role)
            have = 0
            for keyid in keyids:
                if have < threshold:
                    have += self._keyring.signer(keyid) is not None
            self._require(role, have)

    def _require(self, role: str, have: int) -> None:
        keyids, threshold = self.authority(role)
        signing.require(role, keyids, threshold, have, self._keyring)

    def key_name(self, keyid: str) -> str:
        """Return the name of a key; its id where none is known here."""
        entry = self._keyring.by_id(keyid)
        return entry.name if entry else keyid[:12]

    def next_version(self, role: str) -> int:
        """Return a version that neither the repository nor a dead run has used."""
        begun = role in self._begun
        current = 0 if begun else self._roles[role].signed.version
        return max(current, *self.published(role)) + 1

    def commit(self) -> None:
        """Sign what changed and swap it in: delegated roles, snapshot, timestamp.

        Raises:
            MissingKeysError: a role cannot be signed here; nothing was written.
            TransientError: another publisher came first; nothing was swapped.
            RuntimeError: a draft is on it, whose files are nowhere.

        Power cut: until `timestamp.json` is replaced the repository says what it
        said before; files left over are stepped over by their version. Only a new
        root counts from when it is written, right before that: with it alone
        machines accept nothing, and the next commit heals them, or refuses where
        the targets before it do not count any more and cannot be signed here.
        """
        if self.is_draft:
            raise RuntimeError("a draft's files are in memory only")
        self._heal()
        if not self._dirty:
            return
        written: list[tuple[str, bytes]] = []
        last = [self._seal("root")] if "root" in self._dirty else []
        for role in ("targets", *sorted(self._dirty - _TOP)):
            if role in self._dirty:
                written.append(self._seal(role))
                self.snapshot.meta[layout.role_file(role)] = _meta(
                    self._roles[role].signed.version, len(written[-1][1])
                )
        if self._moves_snapshot():
            written.append(self._seal("snapshot"))
            self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        fields = self.timestamp.unrecognized_fields
        fields["x-updaterd-root"] = self.root.version
        fields["x-updaterd-signed"] = f"{self._now:%Y-%m-%dT%H:%M:%SZ}"
        last.append(self._seal("timestamp"))
        for name, data in written:
            durable.write_file(self._folder / name, data, mode=0o644)
        if self._read(layout.TIMESTAMP) != self._timestamp_bytes:
            raise TransientError(
                "another publisher changed the repository meanwhile",
                means="its release stands; yours was not published",
                do="run the same command again",
                code="concurrent_publish",
            )
        for name, data in last:
            durable.write_file(self._folder / name, data, mode=0o644)
        self._timestamp_bytes = last[-1][1]
        self._dirty.clear()
        self._adopted.clear()

    def renew(self, role: str) -> Metadata[Any]:
        """Give a role its next version and a new expiry; return it unsigned."""
        metadata = self._roles[role]
        metadata.signed.version = self.next_version(role)
        self._begun.discard(role)
        metadata.signed.expires = self._now + timedelta(days=days_of(role))
        metadata.signatures.clear()
        return metadata

    def commit_root(self) -> None:
        """Publish a new root: by its name alone clients find it.

        Raises:
            MissingKeysError: it cannot be signed here; nothing was written.

        Power cut: it is published whole, or not at all.
        """
        name, data = self._seal("root")
        durable.write_file(self._folder / name, data, mode=0o644)
        self._dirty.discard("root")

    def _seal(self, role: str) -> tuple[str, bytes]:
        metadata = self._roles[role]
        signed = metadata.signed
        if role not in self._adopted:
            self.renew(role)
            self.sign(role, metadata)
        data = metadata.to_bytes(_COMPACT)
        version = None if role == "timestamp" else signed.version
        return layout.role_file(role, version), data

    @staticmethod
    def encoded(metadata: Metadata[Any]) -> bytes:
        """Return the bytes that a role is published as."""
        return metadata.to_bytes(_COMPACT)


def _meta(version: int, size: int) -> MetaFile:
    # Large ones (an archive of many releases) say their length, which is what lets
    # a client accept more than its default limit.
    return MetaFile(version, length=size if size > 65536 else None)
