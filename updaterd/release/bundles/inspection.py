# SPDX-License-Identifier: Apache-2.0
"""A bundle by itself: what it says it is, and making its tree as a machine would.

The table in front is read here, and of a delta the stream that its codec's name goes
by; the rest is opened by the worker's process. A bundle does not say which release it
belongs to: manifests do, by its hash.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from updaterd.artifact import bsdiff, codecs, container
from updaterd.artifact.job import Job, Report
from updaterd.artifact.programs import stream as images
from updaterd.artifact.worker import parent
from updaterd.core import bundle_kinds
from updaterd.core import manifest as manifests
from updaterd.core.manifest import Delta, Entry, Full, Manifest, tree_id
from updaterd.core.routes import codec_name
from updaterd.errors import BrokenError, MalformedError, RejectedError

_STREAMS = ("script", "control", "runs", "changes", "extra", "images", "archives")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One packed part of a bundle."""

    name: str
    codec: str
    raw: int
    packed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a bundle says of itself.

    Attributes:
        kind: "full" or "delta".
        codec: what an updaterd must be able to read, as a manifest names it; what a
            bundle without a prefix would need, where that cannot be seen.
        needs: decompressors, by name.
        length: bytes of the file.
        sha256: what a manifest knows it by.
        streams: its parts, in their order.
    """

    kind: str
    codec: str
    needs: tuple[str, ...]
    length: int
    sha256: str
    streams: tuple[Stream, ...]


def inspect(path: Path) -> Inspected:
    """Return what a bundle says of itself.

    Raises:
        BrokenError: it cannot be read.
        MalformedError: it is no bundle.
    """
    try:
        if not path.is_file():  # `open` of a FIFO waits for whoever writes to it
            path.stat()
            raise BrokenError(
                f"{path} is not a regular file",
                do="name a bundle: a file below targets/",
                code="unreadable",
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            length = os.fstat(file.fileno()).st_size
            start = os.pread(file.fileno(), len(bsdiff.MAGIC), 0)
            if start == bsdiff.MAGIC:
                return Inspected(
                    kind="delta",
                    codec=bundle_kinds.BSDIFF,
                    needs=("bz2",),
                    length=length,
                    sha256=digest,
                    streams=(),
                )
            kind = container.FULL if start[5:6] == container.FULL else container.DELTA
            table = container.read(file.fileno(), kind, length=length)
            form = _form(file.fileno(), kind, table)
    except OSError as error:
        raise BrokenError(
            f"{path} cannot be read: {error.strerror}",
            do="check the path and its permissions",
            code="unreadable",
        ) from error
    is_full = kind == container.FULL
    streams = tuple(
        Stream(
            name="frame" if is_full else (*_STREAMS, *["stream"] * len(table))[number],
            codec=codecs.NAMES.get(row.codec, "stored"),
            raw=row.raw,
            packed=row.length,
        )
        for number, row in enumerate(table)
    )
    needs = frozenset(stream.codec for stream in streams) - {"stored"}
    return Inspected(
        kind="full" if is_full else "delta",
        codec=codec_name(form, needs),
        needs=tuple(sorted(needs)),
        length=length,
        sha256=digest,
        streams=streams,
    )


def _form(fd: int, kind: bytes, table: Sequence[codecs.Packed]) -> str:
    """Return what a codec's name begins with, of a bundle with these streams."""
    if kind == container.FULL:
        return bundle_kinds.FULL
    if len(table) == len(_STREAMS):
        return bundle_kinds.ARCHIVES
    if len(table) == len(_STREAMS) - 1:
        has_arm = _has_arm(fd, table[-1])
        return bundle_kinds.ARM if has_arm else bundle_kinds.PROJECTED
    return bundle_kinds.PRIMED if _is_primed(fd, table[-1]) else bundle_kinds.DELTA


def _is_primed(fd: int, packed: codecs.Packed) -> bool:
    """Tell whether an extra stream is no frame by itself: it has a prefix."""
    if packed.codec != codecs.ZSTD or packed.raw > codecs.MAX_PREFIX:
        return False
    try:
        codecs.read_whole(fd, packed, "extra", limit=codecs.MAX_PREFIX)
    except MalformedError:
        return True
    return False


def _has_arm(fd: int, packed: codecs.Packed) -> bool:
    """Tell whether an images stream has AArch64 programs; of a broken one, no."""
    files = range(1 << 53, 1 << 54)  # it is not known here how long they are
    try:
        data = codecs.read_whole(fd, packed, "images", limit=images.MAX_BYTES)
        regions = images.decode(data, files, lambda *rows: rows[1], arm=True)
    except MalformedError:
        return False
    return any(
        images.ARM in memoryview(rows).cast("q")[::8] for rows in regions.values()
    )


def read_manifest(path: Path) -> Manifest:
    """Return a manifest from a file; its signature is not checked here.

    Raises:
        BrokenError: it cannot be read.
        MalformedError: it is no manifest.
    """
    try:
        if not path.is_file():
            path.stat()
            raise BrokenError(
                f"{path} is not a regular file",
                do="name a manifest: targets/PRODUCT/releases/VERSION/",
                code="unreadable",
            )
        return manifests.parse(path.read_bytes(), where=str(path))
    except OSError as error:
        raise BrokenError(
            f"{path} cannot be read: {error.strerror}",
            do="check the path and its permissions",
            code="unreadable",
        ) from error


def listed_in(manifest: Manifest, bundle: Inspected) -> Full | Delta:
    """Return what a manifest says of a bundle.

    Raises:
        RejectedError: it does not list it.
    """
    blobs: tuple[Full | Delta, ...] = (manifest.full, *manifest.deltas)
    for blob in blobs:
        if blob.sha256 == bundle.sha256:
            return blob
    raise RejectedError(
        f"{manifest.product} {manifest.version} does not list this bundle "
        f"({bundle.sha256[:12]})",
        means="it was damaged, or it belongs to another release",
        do="name the manifest of its release: targets/PRODUCT/releases/VERSION/",
        code="bundle_not_listed",
    )


def apply(
    path: Path,
    manifest: Manifest,
    destination: Path,
    old: Path | None = None,
    old_files: tuple[Entry, ...] = (),
) -> Report:
    """Make the tree of a bundle in an empty directory, in the worker's process.

    Args:
        path: the bundle.
        manifest: of the release that it makes.
        destination: an empty directory.
        old: the tree that a delta starts from.
        old_files: its listing.

    Raises:
        RejectedError: the bundle is not what the manifest says, or does not make it.
        BrokenError: a delta without the tree that it starts from.
        TransientError: the disk refused.

    Power cut: the directory holds a part of the tree.
    """
    blob = listed_in(manifest, inspect(path))
    job = Job(
        kind="full",
        codec=blob.codec,
        bundle=path,
        bundle_sha256=blob.sha256,
        bundle_length=blob.length,
        destination=destination,
        files=manifest.files,
        tree=manifest.tree,
    )
    if isinstance(blob, Full):
        return parent.run(job)
    if blob.to_tree != manifest.tree:
        raise RejectedError(
            f"this delta makes {blob.to_version}, a step on the way to "
            f"{manifest.version}",
            do=f"name the manifest of {blob.to_version}",
            code="bundle_not_listed",
        )
    if old is None:
        raise BrokenError(
            f"this delta starts from the tree of {blob.from_version}",
            do="name that directory: --old DIR",
            code="wrong_tree",
        )
    if tree_id(old_files) != blob.from_tree:
        raise RejectedError(
            f"{old} is not the tree of {blob.from_version} that this delta starts from",
            do=f"unpack the full bundle of {blob.from_version} and name that",
            code="wrong_tree",
        )
    return parent.run(
        Job(
            kind="delta",
            codec=blob.codec,
            bundle=path,
            bundle_sha256=blob.sha256,
            bundle_length=blob.length,
            destination=destination,
            files=manifest.files,
            tree=manifest.tree,
            old=old,
            old_files=old_files,
        )
    )
