# SPDX-License-Identifier: Apache-2.0
"""Signed manifests on this machine: kept once, and made of less than the whole.

A manifest is kept beside its release (`install/layout.py`), and the journal has its
hash: what stands there with another hash is not known. A journal of an older updaterd
has the bytes themselves.

A new manifest is made of one of the forms that the channel names (`core/forms.py`):
fetched like any bundle, resumed like any, and opened in the same cage.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from updaterd import durable
from updaterd.artifact import codecs
from updaterd.core import forms as wire
from updaterd.core.dataclass import dataclass
from updaterd.core.forms import Form
from updaterd.core.manifest import tree_id
from updaterd.core.settings import Product
from updaterd.errors import BrokenError, RejectedError
from updaterd.files import deletion, places
from updaterd.install import layout
from updaterd.net import Fetcher, NotFoundError
from updaterd.net.blobs import fetch_blob
from updaterd.store.journal import Journal
from updaterd.trust.signed import Signed

Source = tuple[Callable[[int, int], bytes], int]
"""What reads a manifest in parts, and how many bytes it has: `core.manifest.read`."""
_PIECE = 1 << 20


def source(journal: Journal, product: Product, version: str) -> Source | None:
    """Return what reads the manifest of a release on disk; None: it is not known.

    Raises:
        sqlite3.Error: the journal cannot be read.
    """
    sha256 = journal.manifest_hash(product.name, version)
    if not sha256:
        return journal.manifest_source(product.name, version)
    with suppress(OSError):
        signed = Signed.open(layout.manifest_path(Path(product.root), version))
        if _hash_of(signed) == sha256:
            return signed.read, signed.length
    return None


def whole(journal: Journal, product: Product, version: str) -> bytes | None:
    """Return the manifest of a release on disk; None: it is not known.

    Raises:
        sqlite3.Error: the journal cannot be read.
    """
    readable = source(journal, product, version)
    return None if readable is None else readable[0](0, readable[1])


def keep(root: Path, version: str, raw: bytes) -> str:
    """See that a manifest is kept beside its release; return its hash.

    Args:
        root: the install root.
        version: of a release on disk.
        raw: its manifest; nothing: it has none that is known.

    Raises:
        OSError: the disk refused.

    Power cut: what was there is there, or the manifest, whole.
    """
    if not raw:
        return ""
    path = layout.private(root) / "manifests" / f"{version}.json"
    digest = hashlib.sha256(raw).hexdigest()
    with suppress(OSError):
        if _hash_of(Signed.open(path)) == digest:
            return digest
    durable.write_file(path, raw)
    return digest


def _hash_of(signed: Signed) -> str:
    state = hashlib.sha256()
    for at in range(0, signed.length, _PIECE):
        state.update(signed.read(at, _PIECE))
    return state.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """Has the manifests of this machine's releases, and makes others of them.

    Attributes:
        roots: where each product is installed.
        bases: addresses to fetch blobs from.
    """

    journal: Journal
    roots: Mapping[str, Path]
    fetcher: Fetcher
    bases: tuple[str, ...]

    def held(self, sha256: str) -> Path | None:
        """Return where a manifest with this hash should be; None: nowhere."""
        for product, version in self.journal.keeping(sha256):
            root = self.roots.get(product)
            if root is not None:
                path = layout.manifest_path(root, version)
                if path.is_file() and not path.is_symlink():
                    return path
        return None

    def make(
        self, sha256: str, length: int, forms: Sequence[Form], folder: Path
    ) -> Path | None:
        """Return a manifest made of the shortest form that does.

        A form that is nowhere, or does not make it, is passed over: the next one is
        taken, and in the end none.

        Raises:
            TransientError: not now; what came is kept.

        Power cut: what was fetched stays; what is half made is deleted by the next
            call.
        """
        bases = {form.base: self.held(form.base) for form in forms if form.base}
        for form in wire.usable(
            forms,
            codecs=codecs.available(form.codec for form in forms),
            have={base for base, path in bases.items() if path is not None},
            shorter_than=length,
        ):
            base = bases.get(form.base)
            try:
                blob = fetch_blob(
                    self.fetcher, self.bases, form.sha256, form.length, into=folder
                )
                return _open(form, blob, base, folder / "made", sha256, length)
            except (NotFoundError, RejectedError, BrokenError):
                continue
        return None


def _open(  # noqa: PLR0913, PLR0917 - a bundle, and what it is to make
    form: Form, blob: Path, base: Path | None, into: Path, sha256: str, length: int
) -> Path:
    """Make a manifest in a process that opens bundles; return where it is.

    Raises:
        RejectedError: the form does not make it, or what it starts from is damaged.
        TransientError: no room, no memory.
    """
    name = base.name if base else "manifest"
    listing = (wire.file(sha256, length, name=name),)
    before = (wire.file(form.base, base.stat().st_size, name=name),) if base else ()
    if into.exists():
        deletion.delete_tree(into)
    places.make(into)
    from updaterd.artifact.worker import parent  # noqa: PLC0415 - for new releases

    report = parent.run(
        parent.Job(
            kind="delta" if base else "full",
            codec=form.codec,
            bundle=blob,
            bundle_sha256=form.sha256,
            bundle_length=form.length,
            destination=into,
            files=listing,
            tree=tree_id(listing),
            old=base.parent if base else None,
            old_files=before,
            unchanged="copy",
        )
    )
    if report.missing:
        raise RejectedError(
            f"the manifest {form.base[:12]} that is kept here is damaged",
            code="bad_old_files",
        )
    return into / name
