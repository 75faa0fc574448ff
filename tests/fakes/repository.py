# SPDX-License-Identifier: Apache-2.0
"""A repository made by the production code, and the machine's side of it.

`Publisher` signs what a test wants signed, malicious things too; `Client` is the
trust layer over real HTTP to an `Origin`.
"""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fakes.origin import Origin

from updaterd import durable
from updaterd.core.manifest import File, Full, Manifest
from updaterd.net import Fetcher
from updaterd.release import publish, workspace
from updaterd.release.keychange import delegation
from updaterd.trust.client import TrustClient

T0 = datetime(2026, 12, 1, 12, tzinfo=UTC)
PLATFORM = "linux-x86_64"


def manifest_of(product: str, version: str, seq: int, **changes) -> Manifest:
    data = f"{product} {version}\n".encode()
    digest = hashlib.sha256(data).hexdigest()
    manifest = Manifest(
        product=product,
        version=version,
        seq=seq,
        platform=PLATFORM,
        min_updater="0.1.0",
        floor_seq=0,
        files=(File("bin/app", digest, len(data), 0o755),),
        full=Full(sha256=digest, length=100, unpacked=len(data), codec="tar+xz"),
    )
    return replace(manifest, **changes)


class Publisher:
    """A workspace; every method publishes."""

    def __init__(
        self,
        folder: Path,
        *,
        products=("acme",),
        channels=("stable",),
        profile="demo",
        now=T0,
        passphrase=None,
        critical=(),
    ):
        self.folder = folder
        self.now = now
        workspace.create(folder, workspace.Settings(profile=profile, platform=PLATFORM))
        self.space = workspace.Workspace(folder, passphrase)
        delegation.establish(self.space, products, channels, now, critical)

    @property
    def public(self) -> Path:
        return self.folder / "public"

    @property
    def metadata(self) -> Path:
        return self.public / "metadata"

    @property
    def bootstrap(self) -> bytes:
        return (self.metadata / "1.root.json").read_bytes()

    def open(self):
        return publish.open_repository(self.space, self.now)

    def release(
        self,
        version,
        *,
        product="acme",
        channel="stable",
        seq=None,
        blob=False,
        **changes,
    ):
        repository = self.open()
        catalog = publish.catalog_of(self.space, repository, product)
        manifest = manifest_of(product, version, seq or catalog.next_seq(), **changes)
        if blob:
            durable.make_dir(self.space.blob(manifest.full.sha256).parent)
            self.space.blob(manifest.full.sha256).write_bytes(
                f"{product} {version}\n".encode()
            )
        catalog.add(manifest)
        if channel:
            pointer = catalog.pointer(channel)
            catalog.point(publish.offer(pointer, version, manifest.seq))
        repository.commit()
        return manifest

    def refresh(self):
        repository = self.open()
        repository.touch("timestamp")
        repository.commit()

    def pushed(self):
        timestamp, snapshot = self.open().pushed()
        return Pushed(timestamp, snapshot)


class Pushed:
    def __init__(self, timestamp, snapshot):
        self.timestamp = timestamp
        self.snapshot = snapshot


class Client:
    """One machine's trust layer; a new `TrustClient` for each refresh."""

    def __init__(self, cache: Path, bootstrap: bytes, origin: Origin, *, demo=True):
        self.cache = cache
        self.bootstrap = bootstrap
        self.origin = origin
        self.demo = demo
        self.fetcher = Fetcher(deadline_s=2.0, window_s=1.0)
        self.now = T0 + timedelta(hours=1)

    def refresh(self, **more):
        more.setdefault("now", self.now)
        return TrustClient(
            cache=self.cache,
            bootstrap=self.bootstrap,
            repository=self.origin.url,
            fetcher=self.fetcher,
            demo=self.demo,
        ).refresh(**more)

    def offered(self, **more) -> str:
        """Return the version that acme/stable offers."""
        return self.refresh(**more).channel("acme", "stable").releases[0].version

    def close(self):
        self.fetcher.close()
