"""The manifest: what one release of one product is on one platform.

It lists the whole tree, closed: a file that is not listed is not there. It binds
the full bundle and every delta bundle by sha256 and length, so a blob may come
from any mirror. Signed as a TUF target of the role `PRODUCT.releases`.

The *tree id* is the sha256 of the canonical listing; deltas say by it which tree
they start from and which they make.
"""

import hashlib
from dataclasses import dataclass, replace

from updaterd.core import wire
from updaterd.core.names import check_name, check_version
from updaterd.core.tree import (
    MAX_FILES,
    MODE_MASK,
    Entry,
    File,
    Link,
    check_link,
    check_path,
    check_tree,
)
from updaterd.core.wire import Fields
from updaterd.errors import MalformedError

__all__ = [
    "MAX_BYTES",
    "MAX_DELTAS",
    "MAX_FILES",
    "MODE_MASK",
    "SCHEMA",
    "Delta",
    "Entry",
    "File",
    "Full",
    "Link",
    "Manifest",
    "check_link",
    "check_path",
    "check_tree",
    "parse",
    "tree_id",
]

SCHEMA = 1
MAX_BYTES = 64 * 2**20
"""Largest accepted manifest; a tree of 100,000 files needs about 15 MiB."""
MAX_DELTAS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """The full bundle: blob hash, bytes to download, bytes unpacked, codec."""

    sha256: str
    length: int
    unpacked: int
    codec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """An edge between two trees: `length` bytes to download, `memory` to apply."""

    from_version: str
    from_tree: str
    to_version: str
    to_tree: str
    sha256: str
    length: int
    codec: str
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One release of one product on one platform (contracts: `releases/VERSION`)."""

    product: str
    version: str
    seq: int
    platform: str
    min_updater: str
    floor_seq: int
    files: tuple[Entry, ...]
    full: Full
    deltas: tuple[Delta, ...] = ()

    @property
    def tree(self) -> str:
        """Return the tree id of the listing."""
        return tree_id(self.files)

    def encode(self) -> bytes:
        """Return the bytes that are signed and served."""
        tree = self.tree if self.deltas else ""
        return wire.encode({
            "schema": SCHEMA,
            "product": self.product,
            "version": self.version,
            "seq": self.seq,
            "platform": self.platform,
            "min_updater": self.min_updater,
            "floor_seq": self.floor_seq,
            "files": _listing(self.files),
            "full": _as_dict(self.full),
            "deltas": [self._edge(delta, tree) for delta in self.deltas],
        })

    def _edge(self, delta: Delta, tree: str) -> dict[str, object]:
        """Return an edge; one that leads to this very tree need not say so."""
        item = _as_dict(delta)
        if (delta.to_version, delta.to_tree) == (self.version, tree):
            del item["to_version"], item["to_tree"]
        return item


def _as_dict(item: Full | Delta) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}


def _listing(files: tuple[Entry, ...]) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    for entry in files:
        if isinstance(entry, Link):
            out.append({"path": entry.path, "symlink": entry.target})
        else:
            out.append({
                "path": entry.path,
                "sha256": entry.sha256,
                "length": entry.length,
                "mode": entry.mode,
            })
    return out


def tree_id(files: tuple[Entry, ...]) -> str:
    """Return the sha256 of the canonical listing, entries sorted by path."""
    ordered = tuple(sorted(files, key=lambda entry: entry.path.encode()))
    return hashlib.sha256(wire.encode(_listing(ordered))).hexdigest()


def _entry(item: Fields) -> Entry:
    path = check_path(item.text("path", longest=1024))
    if "symlink" in item:
        return Link(path, check_link(path, item.text("symlink", longest=1024)))
    mode = item.integer("mode", high=0o777)
    if mode & ~MODE_MASK:
        raise MalformedError(f"{item.where}: mode {mode:o} is not allowed")
    return File(path, item.hexdigest("sha256"), item.integer("length"), mode)


def _full(item: Fields) -> Full:
    return Full(
        sha256=item.hexdigest("sha256"),
        length=item.integer("length", low=1),
        unpacked=item.integer("unpacked"),
        codec=item.text("codec", longest=32),
    )


def _delta(item: Fields, version: str, tree: str) -> Delta:
    here = "to_version" not in item and "to_tree" not in item
    return Delta(
        from_version=check_version(item.text("from_version")),
        from_tree=item.hexdigest("from_tree"),
        to_version=version if here else check_version(item.text("to_version")),
        to_tree=tree if here else item.hexdigest("to_tree"),
        sha256=item.hexdigest("sha256"),
        length=item.integer("length", low=1),
        codec=item.text("codec", longest=32),
        memory=item.integer("memory"),
    )


def parse(raw: bytes, *, where: str = "manifest") -> Manifest:
    """Return the manifest in `raw`, checked whole.

    Raises:
        MalformedError: anything is missing, out of range, or unsafe.
    """
    item = wire.parse_object(raw, where=where, limit=MAX_BYTES)
    schema = item.integer("schema", low=1)
    if schema != SCHEMA:
        raise MalformedError(
            f"{where} has schema {schema}, this updaterd reads {SCHEMA}",
            do="update updaterd itself",
            code="newer_schema",
        )
    version = check_version(item.text("version"))
    files = item.each("files", _entry, most=MAX_FILES)
    check_tree(files)
    tree = tree_id(files)
    manifest = Manifest(
        product=check_name("product", item.text("product")),
        version=version,
        seq=item.integer("seq", low=1),
        platform=check_name("platform", item.text("platform")),
        min_updater=check_version(item.text("min_updater")),
        floor_seq=item.integer("floor_seq"),
        files=files,
        full=_full(item.fields("full")),
        deltas=item.each(
            "deltas", lambda edge: _delta(edge, version, tree), most=MAX_DELTAS
        ),
    )
    total = sum(f.length for f in manifest.files if isinstance(f, File))
    if total != manifest.full.unpacked:
        raise MalformedError(
            f"{where}: the files add up to {total} bytes, "
            f"`unpacked` says {manifest.full.unpacked}"
        )
    return replace(
        manifest,
        files=tuple(sorted(manifest.files, key=lambda entry: entry.path.encode())),
    )
