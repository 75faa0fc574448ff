# SPDX-License-Identifier: Apache-2.0
"""Make a tree from what is on this disk already, and fetch only what is nowhere here.

For repair, for an application that was installed by others, and for a delta whose
old files turn out to be damaged. What is missing comes from the full bundle: only
the frames that hold it, by Range. Every byte is hashed on its way.
"""

import json
import os
import stat
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from pathlib import Path

from updaterd import durable
from updaterd.artifact import unpack
from updaterd.artifact.destination import Destination
from updaterd.artifact.folders import Folders
from updaterd.artifact.job import entries, rows
from updaterd.artifact.verify import verify_tree
from updaterd.artifact.worker import parent
from updaterd.core import layout
from updaterd.core import manifest as manifests
from updaterd.core.manifest import Entry, File, Manifest, tree_id
from updaterd.errors import (
    BrokenError,
    MalformedError,
    RejectedError,
    TransientError,
    UpdaterError,
)
from updaterd.files import places, regular
from updaterd.install import stage
from updaterd.install.activate import UNMANAGED
from updaterd.install.room import DiskFullError, Need, require
from updaterd.pipeline.machine import Services
from updaterd.pipeline.run import Run
from updaterd.pipeline.tree import removal

_HEAD = 64 * 1024


class NoRangesError(TransientError):
    """A part of a file cannot be fetched: whole files are served only, or other bytes.

    What comes by Range is hashed only after it was unpacked: wrong bytes are the
    server's fault as well as they may be the bundle's. The whole file tells.
    """

    code = "bad_range"


def salvage(
    staging: Path, files: Sequence[Entry], *, linked: bool = False
) -> frozenset[str]:
    """Return which entries of a half-built tree are right; delete everything else.

    Nothing a dead run left is believed: each file is hashed, and what is not listed,
    or not exactly as listed, is gone afterwards.

    Args:
        staging: the tree.
        files: its listing.
        linked: whether hard links, and files that their owner cannot read, stay. Not
            where a bundle is opened next: who does that may write below `staging`, and
            so into the release that has the other link, and lifts no mode. They are
            made again afterwards.

    Raises:
        BrokenError: something of it cannot be deleted.
        OSError: the disk refused.

    Power cut: some of what is wrong is deleted; the next call deletes the rest.
    """
    with os.scandir(staging) as items:
        if not any(items):
            return frozenset()
    wrong = {problem.path for problem in verify_tree(staging, files)}
    if not linked:
        wrong |= _hard_links(staging, files)
        wrong |= {
            entry.path
            for entry in files
            if isinstance(entry, File) and not entry.mode & stat.S_IRUSR
        }
    if _keeps(staging, wrong):
        obstacles = stage.delete_tree(staging)
        if obstacles:
            raise BrokenError(
                f"what a killed run left cannot be deleted: {obstacles[0]}",
                means="the release cannot be built there; what is installed goes on",
                do="unmount it or move it away, then run this again",
                code="in_the_way",
            )
        durable.make_dir(staging, mode=0o700)
        return frozenset()
    return frozenset(entry.path for entry in files) - wrong


def _keeps(staging: Path, paths: Collection[str]) -> bool:
    """Delete paths of a tree; tell whether some of them cannot be deleted."""
    keeps = False
    for path in paths:
        try:
            keeps |= bool(removal.delete(staging, path))
        except OSError:
            keeps = True
    return keeps


def _hard_links(staging: Path, files: Sequence[Entry]) -> set[str]:
    """Return the paths of files that have another name somewhere."""
    paths = set()
    with Folders(staging) as folders:
        for entry in files:
            if isinstance(entry, File):
                with suppress(OSError):
                    directory, name = folders.parent(entry.path)
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if status.st_nlink > 1:
                        paths.add(entry.path)
    return paths


def listing(staging: Path, tree: str) -> tuple[Entry, ...] | None:
    """Return the listing of a tree between two deltas, when an earlier run made it.

    Nobody signed it, but its tree id is signed: another listing has another id.
    """
    try:
        plain = json.loads(
            regular.read(staging.with_suffix(".json"), manifests.MAX_BYTES)
        )
        files = entries(plain)
        return files if files is not None and tree_id(files) == tree else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def keep_listing(staging: Path, files: Sequence[Entry]) -> None:
    """Keep the listing of a tree between two deltas, for a run that goes on.

    Raises:
        OSError: the disk refused.

    Power cut: the listing is there, or not, or not whole: `listing` tells.
    """
    data = json.dumps(rows(files)).encode()
    durable.publish_file(staging.with_suffix(".json"), data, mode=0o600)


def take_over(run: Run, manifest: Manifest, staging: Path) -> frozenset[str]:
    """Fill `staging` from the trees on this disk; return the paths found nowhere."""
    sources = _sources(run, manifest)
    missing = []
    with closing(Destination(staging)) as destination:
        for entry in manifest.files:
            if not isinstance(entry, File):
                destination.symlink(entry.path, entry.target)
                continue
            for version, old in sources.get(entry.sha256, ()):
                with Folders(stage.releases(run.root) / version) as folders:
                    # never by hard link: the copy here may be the one that an
                    # application writes into
                    how = "reflink" if run.product.unchanged == "reflink" else "copy"
                    if destination.share(folders, old, entry.path, entry.mode, how):
                        break
            else:
                missing.append(entry.path)
    return frozenset(missing)


def _sources(run: Run, manifest: Manifest) -> dict[str, list[tuple[str, File]]]:
    """Return where each content should lie on this disk, by sha256."""
    whole = stage.look(run.root).whole
    listings: dict[str, tuple[Entry, ...]] = {manifest.version: manifest.files}
    for release in run.journal.releases(run.name):
        raw = run.manifest(release.version)
        if raw and release.version not in listings:
            with suppress(MalformedError):  # of days when less was refused
                listings[release.version] = manifests.parse(raw).files
    if UNMANAGED in whole:
        # nobody signed a listing of it; its files are hashed before they are taken
        listings[UNMANAGED] = manifest.files
    sources: dict[str, list[tuple[str, File]]] = {}
    for version, files in listings.items():
        for entry in files:
            if isinstance(entry, File) and version in whole:
                sources.setdefault(entry.sha256, []).append((version, entry))
    return sources


def fetch_missing(
    manifest: Manifest, missing: frozenset[str], services: Services, staging: Path
) -> None:
    """Fetch only the parts of the full bundle that hold `missing`, and unpack them.

    The process that opens the bundle gets a folder of its own, and its files are moved
    into `staging` afterwards: there may be hard links to the running release in that.

    Raises:
        NoRangesError: the servers serve whole files only, or what came is not what was
            signed.
        DiskFullError: there is no room for it.
        TransientError: no server could be asked.
        OSError: the disk refused.

    Power cut: the sparse file in the cache is made anew by the next call; the folder is
        cleared with what other runs left.
    """
    full = manifest.full
    sparse = services.bundles(manifest) / f"{full.sha256}.sparse"
    places.make(sparse.parent)
    failure: UpdaterError | None = None
    for base in services.bases:
        url = f"{base}/{layout.blob(full.sha256)}"
        try:
            with sparse.open("w+b") as file:
                file.truncate(full.length)
                _copy_range(services, url, file.fileno(), 0, min(_HEAD, full.length))
                head = os.pread(file.fileno(), min(_HEAD, full.length), 0)
                spans = unpack.ranges(head, full.length, manifest.files, missing)
                coming = sum(high - low for low, high in spans)
                need = Need(
                    folder=sparse.parent, subject="what is missing", bytes=coming
                )
                require([need], min_free=services.download.min_free)
                for low, high in spans:
                    if high > len(head):  # what came with the head is here
                        start = max(low, len(head))
                        _copy_range(services, url, file.fileno(), start, high)
            _unpack_missing(manifest, missing, sparse, staging)
        except DiskFullError:
            raise
        except RejectedError as error:
            failure = NoRangesError(
                f"{url:.200}: {error.cause}", do=error.do, code="hash_mismatch"
            )
        except UpdaterError as error:
            if not isinstance(failure, NoRangesError):  # that one serves whole files
                failure = error
        else:
            return
        finally:
            sparse.unlink(missing_ok=True)
    raise failure or TransientError("no server to fetch from", code="unreachable")


def _unpack_missing(
    manifest: Manifest, missing: frozenset[str], sparse: Path, staging: Path
) -> None:
    """Unpack chosen files beside a tree that is being staged, and move them into it.

    Raises:
        RejectedError: what is in the bundle is not what was signed.
        TransientError: no disk space, no memory.
        OSError: the disk refused.

    Power cut: as `fetch_missing`.
    """
    full = manifest.full
    fresh = stage.open_beside(staging)
    try:
        parent.run(
            parent.Job(
                kind="full",
                codec=full.codec,
                bundle=sparse,
                bundle_sha256=full.sha256,
                bundle_length=full.length,
                destination=fresh,
                files=manifest.files,
                tree=manifest.tree,
                only=missing,
                partial=True,
            )
        )
        with Folders(fresh) as source, Folders(staging, make=True) as target:
            for path in sorted(missing):
                directory, name = source.parent(path)
                folder, _ = target.parent(path)
                durable.rename_at((name, directory), name, folder)
    finally:
        stage.delete_tree(fresh)


def _copy_range(services: Services, url: str, fd: int, low: int, high: int) -> None:
    """Write bytes [low, high) of `url` to the same place of a file.

    Raises:
        NoRangesError: the server serves whole files only.
        TransientError: the answer is too short.
    """
    at = low
    with services.fetcher.stream(url, start=low, end=high) as answer:
        if low and answer.status != 206:
            raise NoRangesError(f"{url:.200}: no ranges there")
        for chunk in answer.chunks:
            piece = memoryview(chunk)[: high - at]
            while piece:
                count = os.pwrite(fd, piece, at)
                piece = piece[count:]
                at += count
            services.teller.progress(
                "downloading what is missing", at - low, high - low
            )
            if at >= high:
                return
    raise TransientError(f"{url:.200} ended early", code="short_answer")
