# SPDX-License-Identifier: Apache-2.0
"""A small TUF repository of any shape, made with `tuf.api`: what a test wants signed.

Unlike `repository.Publisher` it has no product's rules: key types, thresholds, names
and mistakes are the test's.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from updaterd.trust.conformance import ConformanceClient

GENERATE = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "rsa": CryptoSigner.generate_rsa,
}


class TufRepository:
    def __init__(self, folder: Path, *, keytype="ed25519", consistent=True):
        self.folder = folder
        (folder / "metadata").mkdir(parents=True)
        self.now = datetime.now(UTC).replace(microsecond=0)
        end = self.now + timedelta(days=30)
        self.generate = GENERATE[keytype]
        self.root = Root(expires=end, consistent_snapshot=consistent)
        self.targets = Targets(expires=end)
        self.snapshot = Snapshot(expires=end)
        self.timestamp = Timestamp(expires=end)
        self.delegated: dict[str, Targets] = {}
        self.signers: dict[str, list[CryptoSigner]] = {}
        for role in sorted(TOP_LEVEL_ROLE_NAMES):
            self.add_key(role)
        self.publish("root", "targets", "snapshot", "timestamp", bump=False)

    @property
    def bootstrap(self) -> bytes:
        return (self.folder / "metadata" / "1.root.json").read_bytes()

    def add_key(self, role: str, *, delegator: Targets | None = None):
        signer = self.generate()
        (delegator or self.root).add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)

    def rotate(self, role: str):
        """Give a role another key; the old root's keys sign the next root, too."""
        for signer in self.signers[role]:
            self.root.revoke_key(signer.public_key.keyid, role)
        old, self.signers[role] = self.signers[role], []
        self.add_key(role)
        if role == "root":
            self.signers[role] += old

    def delegate(self, name: str, paths: list[str], *, by="targets", terminating=False):
        delegator = self.role(by)
        delegator.delegations = delegator.delegations or Delegations({}, {})
        delegator.delegations.roles[name] = DelegatedRole(
            name, [], 1, terminating, paths=paths
        )
        self.delegated[name] = Targets(expires=self.targets.expires)
        self.add_key(name, delegator=delegator)
        self.snapshot.meta[f"{name}.json"] = MetaFile(1)

    def role(self, name: str):
        return getattr(self, name, None) or self.delegated[name]

    def add(self, path: str, data: bytes, *, role="targets"):
        """Enter a target and serve its bytes under the name that clients ask for."""
        digest = hashlib.sha256(data).hexdigest()
        self.role(role).targets[path] = TargetFile(len(data), {"sha256": digest}, path)
        folder, slash, name = path.rpartition("/")
        prefix = f"{digest}." if self.root.consistent_snapshot else ""
        served = self.folder / "targets" / f"{folder}{slash}{prefix}{name}"
        served.parent.mkdir(parents=True, exist_ok=True)
        served.write_bytes(data)
        return served

    def update(self, *roles: str):
        """Publish new editions of these roles and of what must name them."""
        for role in roles:
            self.role(role).version += 1
            self.snapshot.meta[f"{role}.json"] = MetaFile(self.role(role).version)
        self.snapshot.version += 1
        self.timestamp.snapshot_meta.version = self.snapshot.version
        self.timestamp.version += 1
        self.publish(*roles, "snapshot", "timestamp", bump=False)

    def update_root(self):
        self.publish("root")

    def publish(self, *roles: str, bump=True):
        """Sign and write these roles as they are, right or wrong."""
        for name in roles:
            signed = self.role(name)
            signed.version += bump
            metadata = Metadata(signed)
            for signer in self.signers[name]:
                metadata.sign(signer, append=True)
            prefixed = name == "root" or self.root.consistent_snapshot
            prefix = f"{signed.version}." if prefixed and name != "timestamp" else ""
            file = f"{prefix}{quote(name, safe='')}.json"
            (self.folder / "metadata" / file).write_bytes(metadata.to_bytes())


class Driver:
    """The conformance hook as the suite drives it: a fresh client for each command."""

    def __init__(self, folder: Path, repository: TufRepository, origin):
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self.repository, self.origin = repository, origin
        self.bootstrap = repository.bootstrap
        self.now: datetime | None = None

    def client(self) -> ConformanceClient:
        return ConformanceClient(
            self.metadata,
            f"{self.origin.url}/metadata",
            f"{self.origin.url}/targets",
            self.targets,
            self.bootstrap,
            now=self.now,
        )

    def refresh(self):
        client = self.client()
        try:
            client.refresh()
        finally:
            client.close()

    def download(self, name: str) -> bytes:
        client = self.client()
        try:
            return client.download(name).read_bytes()
        finally:
            client.close()

    def cached(self, role: str) -> bytes:
        return (self.metadata / f"{role}.json").read_bytes()

    def version(self, role: str) -> int:
        return Metadata.from_bytes(self.cached(role)).signed.version
