# SPDX-License-Identifier: Apache-2.0
"""Signatures of pushed metadata, checked by the repository's root (public keys).

The server holds no key and need not. But what rides in an announcement is believed
about the order of things: the newest version that went out refuses older ones. A token
for one product could say any number, for all of them. So where the repository's root
is at hand, only what its keys have signed counts.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updaterd.core import layout
from updaterd.errors import MalformedError

if TYPE_CHECKING:
    from tuf.api.metadata import Root


class Roots:
    """Finds the newest root file.

    Args:
        folder: `metadata/` of the repository; None: served elsewhere.
        file: a root that the operator gave instead; read again when it changes.
    """

    def __init__(self, folder: Path | None, file: Path | None = None) -> None:
        self._folder = folder
        self._file = file
        self._stamp: tuple[int, ...] = ()
        self._root: Root | None = None

    def newest(self) -> "Root | None":
        """Return the newest root; None when none can be read."""
        try:
            stamp = self._stamp_now()
            if stamp != self._stamp:
                self._root, self._stamp = _read(self._path(stamp[0])), stamp
        except (OSError, ValueError):
            pass  # half-copied: the one before counts until it is whole
        return self._root

    def _path(self, version: int) -> Path:
        if self._file is not None:
            return self._file
        assert self._folder is not None
        return self._folder / layout.role_file("root", version)

    def _stamp_now(self) -> tuple[int, ...]:
        """Return what changes when there is another root: its version, its file's.

        Raises:
            OSError: there is none.
            FileNotFoundError: so, too.
        """
        if self._file is not None:
            stat = os.stat(self._file)
            return 0, stat.st_mtime_ns, stat.st_size
        if self._folder is None:
            raise FileNotFoundError
        version = self._stamp[0] if self._stamp else 0
        if not version or not self._path(version).exists():
            names = (name.partition(".") for name in os.listdir(self._folder))
            versions = [int(n) for n, _, rest in names if _is_root(n, rest)]
            version = max(versions, default=0)
        while self._path(version + 1).exists():
            version += 1
        if not version:
            raise FileNotFoundError
        return (version,)


def _is_root(number: str, rest: str) -> bool:
    return rest == layout.ROOT and number.isdigit()


def _read(path: Path) -> "Root":
    """Return a root.

    Raises:
        ValueError: it is none.
    """
    from tuf.api.exceptions import RepositoryError  # noqa: PLC0415 - 10 MiB, see below
    from tuf.api.metadata import Metadata, Root  # noqa: PLC0415 - as above

    try:
        signed = Metadata.from_bytes(path.read_bytes()).signed
    except RepositoryError as error:
        raise ValueError(str(error)) from error
    if not isinstance(signed, Root):
        raise ValueError(f"{path} is a {signed.type}")  # noqa: TRY004 - of its content
    return signed


def check_signed(root: "Root", role: str, raw: bytes) -> None:
    """Make sure that the root's keys have signed a role's file.

    Loaded when it is first needed: most replicas are only read from.

    Raises:
        MalformedError: they have not.
    """
    from tuf.api.exceptions import RepositoryError  # noqa: PLC0415 - as above
    from tuf.api.metadata import Metadata  # noqa: PLC0415 - as above

    try:
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
        root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise MalformedError(
            f"pushed {role} is not signed by the keys of the repository's root "
            f"{root.version}",
            means="no machine would believe it",
            do="upload the repository, its newest root above all, before it is "
            "announced; `updaterd serve --root` must be its newest root, too",
            code="metadata_forged",
        ) from error
