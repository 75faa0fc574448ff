# SPDX-License-Identifier: Apache-2.0
"""Patches that others made: plain `BSDIFF40` files become edges of a manifest.

A pipeline that runs `bsdiff` already need not change. Nothing in such a file says
what it belongs to, so it is proven as every other bundle before anything is signed:
what does not make the release from the named one is refused here.
"""

import hashlib
import os
import shutil
from pathlib import Path

from updaterd.core.bundle_kinds import BSDIFF
from updaterd.core.manifest import Delta, Entry, Manifest, tree_id
from updaterd.errors import BrokenError, RejectedError
from updaterd.files import deletion
from updaterd.release.bundles import full as full_bundle
from updaterd.release.bundles.making import MEMORY
from updaterd.release.bundles.proof import Prover


def take(  # noqa: PLR0913, PLR0917 - an edge has two ends
    blob: Path,
    work: Path,
    patch: Path,
    old: Manifest,
    files: tuple[Entry, ...],
    version: str,
    prover: Prover,
) -> Delta:
    """Return the edge that a patch makes, proven by applying it.

    Args:
        blob: the full bundle of the old release.
        work: an empty directory; the patch is copied to `work/patch`.
        patch: from the old release's files, one after another, to the new one's.
        old: manifest of the release it starts from.
        files: listing of the new release.
        version: label of the new release.
        prover: applies it.

    Raises:
        RejectedError: it is no such patch, or makes something else.
        BrokenError: it cannot be read.
        TransientError: no disk space.

    Power cut: `work` is left over; it is swept by the next run.
    """
    try:
        shutil.copyfile(patch, work / "patch")
    except OSError as error:
        raise BrokenError(
            f"{patch} cannot be read: {error.strerror}", code="unreadable"
        ) from error
    data = work / "patch"
    with data.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    length = os.path.getsize(data)
    edge = Delta(
        from_version=old.version,
        from_tree=old.tree,
        to_version=version,
        to_tree=tree_id(files),
        sha256=sha256,
        length=length,
        codec=BSDIFF,
        memory=MEMORY,
    )
    full_bundle.unpack(blob, old.full, old.files, work / "before")
    try:
        prover.delta(data, edge, work / "before", old.files, files)
    except RejectedError as error:
        raise RejectedError(
            f"{patch} does not make {version} from {old.version}: {error.cause}",
            means="nothing was signed or published",
            do="make it with `bsdiff` from the regular files of the one tree to those "
            "of the other, each sorted by path and one after another",
            code="useless_patch",
        ) from error
    finally:
        deletion.delete_tree(work / "before")
    return edge
