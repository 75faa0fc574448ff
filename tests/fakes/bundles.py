# SPDX-License-Identifier: Apache-2.0
"""Bundles for tests: made of real trees, or put together by hand to be hostile."""

import hashlib
import lzma
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from updaterd.artifact import container
from updaterd.artifact.codecs import WINDOW, XZ
from updaterd.artifact.destination import Destination
from updaterd.artifact.job import Job, Report
from updaterd.artifact.worker import child, completion
from updaterd.artifact.worker.parent import run
from updaterd.core.manifest import Delta, Entry, Link, tree_id
from updaterd.release import tree
from updaterd.release.bundles import delta as delta_bundle


def grow(root: Path, files: Mapping[str, bytes | str]) -> tuple[Entry, ...]:
    """Make a tree (bytes: a file, text: a link, `+x` in its path: executable)."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o755 if "+x" in name else 0o644)
    return tree.scan(root)


def make_delta(base: Path, **options: int) -> Delta:
    """Make BASE/delta from BASE/old to BASE/new."""
    return delta_bundle.build_delta(
        base / "old",
        tree.scan(base / "old"),
        base / "new",
        tree.scan(base / "new"),
        base / "delta",
        from_version="1",
        to_version="2",
        **options,
    )


def delta_job(
    base: Path,
    bundle: Path,
    old: tuple[Entry, ...],
    new: tuple[Entry, ...],
    **changes: object,
) -> Job:
    """Return the job that applies `bundle` to BASE/old in a fresh BASE/out*."""
    out = base / f"out{len(os.listdir(base))}"
    out.mkdir(mode=0o700)
    data = bundle.read_bytes()
    fields: dict[str, object] = {
        "kind": "delta",
        "codec": "delta1+bz2+xz+zstd",
        "bundle": bundle,
        "bundle_sha256": hashlib.sha256(data).hexdigest(),
        "bundle_length": len(data),
        "destination": out,
        "files": new,
        "tree": tree_id(new),
        "old": base / "old",
        "old_files": old,
    }
    return Job(**(fields | changes))  # type: ignore[arg-type]


def pack(data: bytes) -> tuple[int, int, bytes]:
    """Return a stream as codec, raw length and packed bytes."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": WINDOW}]
    packed = lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)
    return XZ, len(data), packed


def assemble(kind: bytes, *streams: tuple[int, int, bytes]) -> bytes:
    """Return a bundle of packed streams, whatever they claim."""
    table = [(codec, raw, len(packed)) for codec, raw, packed in streams]
    body = b"".join(packed for _, _, packed in streams)
    return container.header(kind, table) + body


def links(files: tuple[Entry, ...]) -> dict[str, str]:
    return {entry.path: entry.target for entry in files if isinstance(entry, Link)}


def perform(job: Job) -> Report:
    """Do both parts of a job in this process: without a cage, and much faster."""
    with closing(Destination(job.destination)) as destination:
        return completion.complete(job, child.make(job), destination)


__all__ = [
    "assemble", "delta_job", "grow", "links", "make_delta", "pack", "perform", "run",
]  # fmt: skip
