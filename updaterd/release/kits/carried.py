# SPDX-License-Identifier: Apache-2.0
"""The files of a repository that a first install needs: what a machine asks for.

They are found by asking, as a machine would, with the machine's own code and a folder
for an answer; so what is carried is what is wanted, and it has been verified.
"""

import tempfile
from datetime import datetime
from pathlib import Path

from updaterd.core import layout
from updaterd.net import Fetcher
from updaterd.net.folder import Folder
from updaterd.release.kits.description import KitError
from updaterd.trust.client import TrustClient

_BASE = "https://carried.invalid"


def collect(  # noqa: PLR0913 - which release of which repository
    public: Path,
    bootstrap: bytes,
    *,
    product: str,
    channel: str,
    platform: str,
    now: datetime,
    demo: bool,
) -> dict[str, bytes]:
    """Return the files by which a machine installs what its channel offers.

    All offers of the channel: which one it will be is the machine's own draw.

    Args:
        public: the repository, as published.
        bootstrap: its first root.
        product: what is installed.
        channel: which it follows.
        platform: what machine it is for.
        now: the time.
        demo: whether a demonstration's repository will do.

    Raises:
        KitError: the channel offers nothing for that platform.
        UpdaterError: the repository cannot be verified.
    """
    paths: set[str] = set()
    folder = Folder(_BASE, public, paths.add)
    with (
        tempfile.TemporaryDirectory(prefix="updaterd-kit-") as cache,
        Fetcher(way=folder) as fetcher,
    ):
        client = TrustClient(
            cache=Path(cache),
            bootstrap=bootstrap,
            repository=_BASE,
            fetcher=fetcher,
            demo=demo,
        )
        view = client.refresh(now=now)
        offers = view.channel(product, channel).releases
        count = 0
        for offer in offers:
            if platform not in view.platforms(product, offer.version, platform):
                continue
            manifest = view.manifest(product, offer.version, platform)
            paths.add(layout.blob(manifest.full.sha256))
            paths.update(layout.blob(item.sha256) for item in manifest.attestations)
            count += 1
    if not count:
        raise KitError(
            f"{product}/{channel} offers nothing for {platform}",
            do="push a release first; or make the kit without --with-release",
        )
    files = {}
    for path in sorted(paths):
        try:
            files[path] = (public / path).read_bytes()
        except OSError as error:
            raise KitError(f"cannot read {public / path}: {error.strerror}") from error
    return files
