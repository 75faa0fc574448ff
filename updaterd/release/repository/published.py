# SPDX-License-Identifier: Apache-2.0
"""The signed files of a repository, read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    Metadata,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from updaterd.core import layout
from updaterd.errors import BrokenError


class Published:
    """The metadata as published now.

    Args:
        folder: `public/metadata`.
        founding: there is nothing to read yet.

    Raises:
        BrokenError: the files cannot be read or contradict each other.
    """

    def __init__(self, folder: Path, *, founding: bool = False) -> None:
        self._folder = folder
        self._roles: dict[str, Metadata[Any]] = {}
        self._timestamp_bytes = self._read(layout.TIMESTAMP)
        self.root_before: list[str] = []
        if not founding:
            self._load()

    def _load(self) -> None:
        try:
            newest = max(versions(self._folder, "root"))
            self._roles["root"] = self._parse(layout.role_file("root", newest), "root")
            self.root_before = list(self.root.roles["root"].keyids)
            if not self._timestamp_bytes:
                return  # a repository that is just being made
            self._roles["timestamp"] = Metadata.from_bytes(self._timestamp_bytes)
            version = self.timestamp.snapshot_meta.version
            self._roles["snapshot"] = self._parse(
                layout.role_file("snapshot", version), "snapshot"
            )
            for name, meta in self.snapshot.meta.items():
                role = layout.stem(name)
                self._roles[role] = self._parse(
                    layout.role_file(role, meta.version), role
                )
        except (RepositoryError, OSError, ValueError) as error:
            raise BrokenError(
                f"cannot read the repository in {self._folder}: {error}",
                means="nothing was changed",
                do="restore the folder from a backup or any mirror: every file in it "
                "is signed",
                code="repository_unreadable",
            ) from error

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return b""

    def _parse(self, name: str, role: str) -> Metadata[Any]:
        metadata: Metadata[Any] = Metadata.from_bytes(
            (self._folder / name).read_bytes()
        )
        kind = role if role in {"root", "snapshot", "timestamp"} else "targets"
        if metadata.signed.type != kind:
            raise ValueError(f"{name} is a {metadata.signed.type}")
        return metadata

    @property
    def roles(self) -> dict[str, Metadata[Any]]:
        """Return all roles by name."""
        return self._roles

    @property
    def root(self) -> Root:
        """Return the newest root."""
        signed = self._roles["root"].signed
        assert isinstance(signed, Root)
        return signed

    @property
    def timestamp(self) -> Timestamp:
        """Return the timestamp."""
        signed = self._roles["timestamp"].signed
        assert isinstance(signed, Timestamp)
        return signed

    @property
    def snapshot(self) -> Snapshot:
        """Return the snapshot."""
        signed = self._roles["snapshot"].signed
        assert isinstance(signed, Snapshot)
        return signed

    def targets(self, role: str = "targets") -> Targets:
        """Return a targets role.

        Raises:
            BrokenError: there is none of this name.
        """
        metadata = self._roles.get(role)
        if metadata is None or not isinstance(metadata.signed, Targets):
            product, _, kind = role.partition(".")
            if layout.releases_role(product) in self._roles:
                raise BrokenError(
                    f"the product {product} has no channel {kind!r}",
                    do=f"`updaterd release status` shows those it has; `updaterd "
                    f"release keys add-channel {product} {kind}` makes it",
                    code="no_such_role",
                )
            raise BrokenError(
                f"the repository has no product {product!r}",
                do=f"`updaterd release keys add-product {product}` delegates to it",
                code="no_such_role",
            )
        return metadata.signed

    def authority(self, role: str) -> tuple[list[str], int]:
        """Return the ids of the keys that may sign a role, and how many must.

        Raises:
            BrokenError: nothing delegates to it.
        """
        if role in self.root.roles:
            top_role = self.root.roles[role]
            return top_role.keyids, top_role.threshold
        delegations = self.targets().delegations
        if delegations and delegations.roles and role in delegations.roles:
            delegated = delegations.roles[role]
            return delegated.keyids, delegated.threshold
        raise BrokenError(f"nothing delegates to the role {role}", code="no_such_role")

    def published(self, role: str) -> list[int]:
        """Return the versions of a role on disk, in no order; 0 stands for none."""
        return [0, *versions(self._folder, role)]

    def edition(self, role: str, version: int) -> Metadata[Any] | None:
        """Return an edition of a role on disk, referred to or not; None: no such."""
        name = layout.role_file(role, version)
        return self._parse(name, role) if (self._folder / name).exists() else None

    def raw(self, name: str) -> bytes:
        """Return the bytes of a file on disk, referred to or not; empty: no such."""
        return self._read(name)

    def editions(self, role: str) -> Iterator[Targets]:
        """Yield the editions of a targets role on disk that count, oldest first.

        Only those before the present one: a dead run may have left later ones.
        """
        present = self._roles[role].signed.version
        for version in sorted(versions(self._folder, role)):
            metadata = self.edition(role, version) if version < present else None
            if metadata is not None and isinstance(metadata.signed, Targets):
                yield metadata.signed

    def _backed(self, role: str) -> bool:
        """Tell whether the newest root's keys have signed a role as it is now."""
        metadata = self._roles[role]
        try:
            self.root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError:
            return False
        return True

    def is_overtaken(self) -> bool:
        """Tell whether another publisher has published since, in the same place."""
        return self._read(layout.TIMESTAMP) != self._timestamp_bytes

    def pushed(self) -> tuple[bytes, bytes]:
        """Return the bytes of timestamp and snapshot as published now."""
        version = self.timestamp.snapshot_meta.version
        return self._timestamp_bytes, self._read(layout.role_file("snapshot", version))


def versions(folder: Path, role: str) -> Iterator[int]:
    """Yield the versions of a role in a folder, in no order."""
    for name in os.listdir(folder):
        number = layout.edition(name, role)
        if number is not None:
            yield number
