# SPDX-License-Identifier: Apache-2.0
"""Which repository this is: its roots, each signed by the one before it.

Neither its address tells (mirrors move) nor the bootstrap root alone (packages bring
newer ones of the same repository). Its roots do: whoever owns a repository is who its
keys let sign the next root (TUF specification 5.3.4).
"""

import hashlib
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import CanonicalJSONSerializer

from updaterd.core import layout


def lineage(cache: Path, bootstrap: bytes, newest: int) -> tuple[str, ...]:
    """Return the ids of the repository's roots that are known here, oldest first.

    Args:
        cache: what python-tuf keeps; roots after the bootstrap were verified by the
            refresh that just ended, those before it are verified here.
        bootstrap: the root this machine was given, checked by the caller.
        newest: version of the newest trusted root.
    """
    first: Metadata[Root] = Metadata.from_bytes(bootstrap)
    chain = [first]
    while (before := _stored(cache, chain[0].signed.version - 1)) is not None:
        try:
            before.signed.verify_delegate(
                Root.type, chain[0].signed_bytes, chain[0].signatures
            )
        except (RepositoryError, ValueError):
            break  # of the repository that this machine came from
        chain.insert(0, before)
    for version in range(first.signed.version + 1, newest + 1):
        after = _stored(cache, version)
        if after is not None:
            chain.append(after)
    return tuple(_identity(root.signed) for root in chain)


def _stored(cache: Path, version: int) -> Metadata[Root] | None:
    path = cache / "root_history" / layout.role_file("root", version)
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
    except (OSError, DeserializationError):
        return None
    known = isinstance(metadata.signed, Root) and metadata.signed.version == version
    return metadata if known else None


def _identity(root: Root) -> str:
    # what is signed, not the file: signatures may be added, spaces may differ
    return hashlib.sha256(CanonicalJSONSerializer().serialize(root)).hexdigest()
