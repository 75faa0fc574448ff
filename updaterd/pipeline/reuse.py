"""Make a tree from what is on this disk already, and fetch only what is nowhere here.

For repair, for an application that was installed by others, and for a delta whose
old files turn out to be damaged. What is missing comes from the full bundle: only
the frames that hold it, by Range. Every byte is hashed on its way.
"""

import os
from contextlib import closing
from pathlib import Path

from updaterd.artifact import sandbox, unpack
from updaterd.artifact.folders import Folders
from updaterd.artifact.output import Destination
from updaterd.core import manifest as manifests
from updaterd.core.manifest import Entry, File, Manifest
from updaterd.core.settings import Product
from updaterd.errors import TransientError, UpdaterError
from updaterd.install import stage
from updaterd.install.activate import UNMANAGED
from updaterd.pipeline.services import Services

_HEAD = 64 * 1024


def take_over(
    product: Product, manifest: Manifest, services: Services, staging: Path
) -> frozenset[str]:
    """Fill `staging` from the trees on this disk; return the paths found nowhere."""
    root = Path(product.root)
    sources = _sources(product, manifest, services)
    missing = []
    with closing(Destination(staging)) as destination:
        for entry in manifest.files:
            if not isinstance(entry, File):
                destination.symlink(entry.path, entry.target)
                continue
            for version, old in sources.get(entry.sha256, ()):
                with Folders(stage.releases(root) / version) as folders:
                    # never by hard link: the copy here may be the one that an
                    # application writes into
                    how = "reflink" if product.unchanged == "reflink" else "copy"
                    if destination.share(folders, old, entry.path, entry.mode, how):
                        break
            else:
                missing.append(entry.path)
    return frozenset(missing)


def _sources(
    product: Product, manifest: Manifest, services: Services
) -> dict[str, list[tuple[str, File]]]:
    """Return where each content should lie on this disk, by sha256."""
    whole = stage.look(Path(product.root)).whole
    listings: dict[str, tuple[Entry, ...]] = {manifest.version: manifest.files}
    for release in services.journal.releases(product.name):
        raw = services.journal.manifest_bytes(product.name, release.version)
        if raw and release.version not in listings:
            listings[release.version] = manifests.parse(raw).files
    if UNMANAGED in whole:
        # nobody signed a listing of it; its files are hashed before they are taken
        listings[UNMANAGED] = manifest.files
    found: dict[str, list[tuple[str, File]]] = {}
    for version, files in listings.items():
        for entry in files:
            if isinstance(entry, File) and version in whole:
                found.setdefault(entry.sha256, []).append((version, entry))
    return found


def fetch_missing(
    manifest: Manifest, missing: frozenset[str], services: Services, staging: Path
) -> None:
    """Fetch only the parts of the full bundle that hold `missing`, and unpack them.

    Raises:
        TransientError: no server could be asked.
        RejectedError: what came is not what was signed.

    Power cut: the sparse file in the cache is made anew by the next call.
    """
    full = manifest.full
    sparse = services.cache / "bundles" / f"{full.sha256}.sparse"
    sparse.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    failure: UpdaterError | None = None
    for base in services.bases:
        url = f"{base}/blobs/sha256/{full.sha256[:2]}/{full.sha256}"
        try:
            with sparse.open("wb") as file:
                file.truncate(full.length)
                _copy_range(services, url, file.fileno(), 0, min(_HEAD, full.length))
                file.flush()
                head = sparse.read_bytes()[:_HEAD]
                spans = unpack.ranges(head, full.length, manifest.files, missing)
                for low, high in spans:
                    _copy_range(services, url, file.fileno(), low, high)
            sandbox.run(
                sandbox.Job(
                    kind="full",
                    codec=full.codec,
                    bundle=sparse,
                    bundle_sha256=full.sha256,
                    bundle_length=full.length,
                    destination=staging,
                    files=manifest.files,
                    tree=manifest.tree,
                    only=missing,
                    partial=True,
                )
            )
        except UpdaterError as error:
            failure = error
        else:
            return
        finally:
            sparse.unlink(missing_ok=True)
    raise failure or TransientError("no server to fetch from", code="unreachable")


def _copy_range(services: Services, url: str, fd: int, low: int, high: int) -> None:
    """Write bytes [low, high) of `url` to the same place of a file.

    Raises:
        TransientError: the server cannot serve a range, or the answer is too short.
    """
    at = low
    with services.fetcher.stream(url, start=low) as answer:
        if low and answer.status != 206:
            raise TransientError(f"{url:.200}: no ranges there", code="bad_range")
        for chunk in answer.chunks:
            piece = chunk[: high - at]
            os.pwrite(fd, piece, at)
            at += len(piece)
            services.teller.progress(
                "downloading what is missing", at - low, high - low
            )
            if at >= high:
                return
    raise TransientError(f"{url:.200} ended early", code="short_answer")
