# SPDX-License-Identifier: Apache-2.0
"""Attestations of a release: read from files, bound to what was built, checked.

One belongs to a release when a subject of its statement is the release's tree id. It
lies among the blobs, under its hash, and the manifest names it: so the release key
vouches for every byte of it, and it never changes.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from updaterd import durable
from updaterd.core import attestation
from updaterd.core.attestation import Attestation, Statement
from updaterd.core.manifest import Manifest
from updaterd.errors import BrokenError, MalformedError, RejectedError
from updaterd.release.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """One that somebody gave.

    Attributes:
        path: where it is.
        raw: its bytes.
        statement: what it says.
        entry: what a manifest says of it.
    """

    path: Path
    raw: bytes
    statement: Statement
    entry: Attestation


def read(path: Path) -> Attached:
    """Return the attestation in a file.

    Raises:
        RejectedError: there is none in it.
        BrokenError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(attestation.MAX_BYTES + 1)
        statement = attestation.parse(raw, where=str(path))
    except OSError as error:
        raise BrokenError(
            f"{path} cannot be read: {error.strerror}",
            do="check the path and its permissions",
            code="unreadable",
        ) from error
    except MalformedError as error:
        raise RejectedError(
            f"{error.cause}",
            means="it is no attestation that a release can carry; nothing was signed",
            do="give an in-toto statement, as it is or in a DSSE envelope, of at most "
            f"{attestation.MAX_BYTES >> 20} MiB",
            code="bad_attestation",
        ) from error
    entry = Attestation(
        kind=statement.kind,
        sha256=hashlib.sha256(raw).hexdigest(),
        length=len(raw),
    )
    return Attached(path=path, raw=raw, statement=statement, entry=entry)


def read_all(paths: Sequence[Path]) -> tuple[Attached, ...]:
    """Return the attestations in files, each once.

    Raises:
        RejectedError: there are too many, or there is none in one.
        BrokenError: one cannot be read.
    """
    attached = {item.entry.sha256: item for item in map(read, paths)}
    if len(attached) > attestation.MAX_COUNT:
        raise RejectedError(
            f"{len(attached)} attestations are given, a release carries "
            f"{attestation.MAX_COUNT} at most",
            do="leave some away, or put several statements' subjects into one",
            code="bad_attestation",
        )
    return tuple(attached.values())


def of(attached: Sequence[Attached], tree: str) -> tuple[Attached, ...]:
    """Return those that are about a tree."""
    return tuple(item for item in attached if tree in item.statement.digests)


def keep(workspace: Workspace, attached: Sequence[Attached]) -> None:
    """Put attestations among the blobs.

    Raises:
        OSError: the disk refused.

    Power cut: each is whole or absent; nothing refers to it yet.
    """
    for item in attached:
        final = workspace.blob(item.entry.sha256)
        if final.exists():
            os.utime(final)  # young again: garbage collection leaves it alone
            continue
        durable.make_dir(final.parent)
        durable.write_file(final, item.raw, mode=0o644)


def check_all_bound(
    attached: Sequence[Attached], manifests: Sequence[Manifest]
) -> None:
    """Make sure that every attestation is about one of the releases, which carries it.

    Raises:
        RejectedError: one is about something else, or its release is published
            without it.
    """
    carried = {
        entry.sha256 for manifest in manifests for entry in manifest.attestations
    }
    for item in attached:
        if item.entry.sha256 in carried:
            continue
        for manifest in manifests:
            if of([item], manifest.tree):
                raise RejectedError(
                    f"{manifest.product} {manifest.version} ({manifest.platform}) "
                    f"exists without {item.path}",
                    means="a published release never changes, and its manifest lists "
                    "its attestations",
                    do="attest before the release is pushed; release the tree again, "
                    "under a new version",
                    code="release_exists",
                )
        trees = ", ".join(
            f"{manifest.tree} ({manifest.platform})" for manifest in manifests
        )
        raise RejectedError(
            f"{item.path} is not about this release: none of its subjects has the "
            "SHA-256 of the tree",
            means=f"the tree is {trees}; nothing was signed",
            do="attest what `updaterd release subject TREE` prints",
            code="attests_another",
        )


def wrong(workspace: Workspace, manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with the attestations of a published release.

    Missing ones are somebody else's to report.
    """
    where = f"{manifest.product} {manifest.version} ({manifest.platform})"
    for entry in manifest.attestations:
        path = workspace.blob(entry.sha256)
        try:
            raw = path.read_bytes()
        except OSError:
            continue
        yield from faults(manifest, entry, raw, where=where)


def faults(
    manifest: Manifest, entry: Attestation, raw: bytes, *, where: str
) -> Iterator[str]:
    """Yield why a file is not the attestation that a manifest lists."""
    name = f"{where}: attestation {entry.sha256[:12]}"
    if (hashlib.sha256(raw).hexdigest(), len(raw)) != (entry.sha256, entry.length):
        yield f"{name} is damaged"
        return
    try:
        statement = attestation.parse(raw, where=name)
    except MalformedError as error:
        yield error.cause
        return
    if statement.kind != entry.kind:
        yield f"{name} is {statement.kind}, the manifest says {entry.kind}"
    if manifest.tree not in statement.digests:
        yield f"{name} is about another tree"
