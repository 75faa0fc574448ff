# SPDX-License-Identifier: Apache-2.0
"""What is out: the repository as its address serves it, judged by its own keys.

A workspace that was restored from a backup is whole and valid, and behind: it would
give the same versions, the same `seq` and the same labels a second time, and machines
would take none of it. Only what is out tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from updaterd.core import layout
from updaterd.core import manifest as manifests
from updaterd.errors import BrokenError, RejectedError, UpdaterError
from updaterd.net import NotFoundError
from updaterd.release.repository.metadata import Repository
from updaterd.trust.updater import LIMITS

T = TypeVar("T")


class ForeignError(RejectedError):
    """What the address serves was not signed by this repository's keys."""

    code = "not_compared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """What an address serves, as far as it verifies.

    Attributes:
        roots: newer ones than here, oldest first.
        timestamp: its bytes.
        snapshot: its bytes, where it is there.
        versions: of every role, `timestamp` and `snapshot` included.
    """

    timestamp: bytes
    snapshot: bytes = b""
    roots: tuple[Metadata[Root], ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)

    def ahead_of(self, repository: Repository) -> tuple[str, ...]:
        """Return the roles that are newer there, or other ones of the same version."""
        known = {name: role.signed.version for name, role in repository.roles.items()}
        newer = ["root"] if self.roots else []
        newer += [name for name, at in self.versions.items() if at > known.get(name, 0)]
        same = self.versions["timestamp"] == repository.timestamp.version
        if same and self.timestamp != repository.pushed()[0]:
            newer.append("timestamp")
        return tuple(newer)


class Reader(Protocol):
    """What reads files at an address: `net.Fetcher`, or a destination."""

    def get(self, url: str, *, limit: int) -> bytes:
        """Return a file.

        Raises:
            NotFoundError: there is none.
            TransientError: it cannot be had now.
        """
        ...


class Served:
    """A repository at its address.

    Args:
        fetcher: asks the network, or the destination.
        address: of the directory that holds `metadata/`.
    """

    def __init__(self, fetcher: Reader, address: str) -> None:
        self._fetcher = fetcher
        self.address = address.rstrip("/")

    def look(self, repository: Repository) -> Out | None:
        """Return what is out; None: nothing yet.

        Raises:
            TransientError: it cannot be asked now.
            ForeignError: something is, which the keys of this repository did not sign.
        """
        roots = self._roots(repository)
        judge = roots[-1].signed if roots else repository.root
        try:
            raw = self._get(layout.TIMESTAMP, LIMITS.timestamp_max_length)
        except NotFoundError:
            return None
        if not roots and _is_of_an_older_root(repository, raw):
            return None  # its keys do not count any more: what they signed is older
        timestamp = self._judged(raw, "timestamp", judge, Timestamp)
        versions = {"timestamp": timestamp.version}
        at = timestamp.snapshot_meta.version
        versions["snapshot"] = at
        try:
            raw_snapshot = self._get(
                layout.role_file("snapshot", at), LIMITS.snapshot_max_length
            )
        except NotFoundError:
            return Out(timestamp=raw, roots=roots, versions=versions)
        snapshot = self._judged(raw_snapshot, "snapshot", judge, Snapshot)
        for name, meta in snapshot.meta.items():
            versions[layout.stem(name)] = meta.version
        return Out(timestamp=raw, snapshot=raw_snapshot, roots=roots, versions=versions)

    def role(self, name: str, version: int, judge: Root | Targets) -> Metadata[Any]:
        """Return a targets role as it is out.

        Raises:
            TransientError: it cannot be had.
            ForeignError: its keys did not sign it.
        """
        raw = self._get(layout.role_file(name, version), 64 * LIMITS.targets_max_length)
        self._judged(raw, name, judge, Targets)
        return Metadata.from_bytes(raw)

    def tree(self, target: TargetFile) -> str:
        """Return the tree of a release that is out; empty where it cannot be had."""
        path = layout.target_file(target.path, target.hashes["sha256"])
        try:
            raw = self._fetcher.get(f"{self.address}/{path}", limit=manifests.MAX_BYTES)
            target.verify_length_and_hashes(raw)
            return manifests.parse(raw).tree
        except (UpdaterError, RepositoryError):
            return ""

    def _roots(self, repository: Repository) -> tuple[Metadata[Root], ...]:
        roots: list[Metadata[Root]] = []
        judge = repository.root
        while len(roots) < LIMITS.max_root_rotations:
            name = layout.role_file("root", judge.version + 1)
            try:
                raw = self._get(name, LIMITS.root_max_length)
            except NotFoundError:
                break
            signed = self._judged(raw, "root", judge, Root)
            metadata: Metadata[Root] = Metadata.from_bytes(raw)
            if signed.version != judge.version + 1:
                raise self._foreign(name)
            roots.append(metadata)
            judge = signed
        return tuple(roots)

    def _get(self, name: str, limit: int) -> bytes:
        return self._fetcher.get(
            f"{self.address}/{layout.METADATA}/{name}", limit=limit
        )

    def _judged(self, raw: bytes, role: str, judge: Root | Targets, kind: type[T]) -> T:
        try:
            metadata: Metadata[Any] = Metadata.from_bytes(raw)
            judge.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError) as error:
            raise self._foreign(role) from error
        if not isinstance(metadata.signed, kind):
            raise self._foreign(role)
        return metadata.signed

    def _foreign(self, file: str) -> ForeignError:
        return ForeignError(
            f"the {file} at {self.address} was not signed by the keys of this "
            "repository",
            means="the published copy cannot be compared with this workspace",
            do="check the address (served_at in release.toml); --no-compare goes on "
            "without",
        )


def _is_of_an_older_root(repository: Repository, raw: bytes) -> bool:
    """Tell whether a timestamp is one of those before the keys changed."""
    newest = repository.root.version
    judges = [repository.root]
    for version in range(newest - 1, 0, -1):
        older = repository.edition("root", version)
        if older is not None:
            judges.append(older.signed)
    for judge in judges:
        try:
            metadata: Metadata[Any] = Metadata.from_bytes(raw)
            judge.verify_delegate(
                "timestamp", metadata.signed_bytes, metadata.signatures
            )
        except (RepositoryError, ValueError):
            continue
        return judge is not repository.root
    return False


def behind(address: str, roles: tuple[str, ...]) -> BrokenError:
    """Return the refusal to publish from what is behind what is out."""
    return BrokenError(
        f"{address} serves a newer repository than this one: {', '.join(roles)}",
        means="machines would ignore what is published from here; was it restored from "
        "a backup? Nothing was published",
        do="bring the newest copy of public/ here, or go on from this one: `updaterd "
        "release recover`",
        code="repository_behind",
    )
