# SPDX-License-Identifier: Apache-2.0
"""The manifest: what one release of one product is on one platform.

It lists the whole tree, closed: a file that is not listed is not there. It binds
the full bundle and every delta bundle by sha256 and length, so a blob may come
from any mirror. Signed as a TUF target of the role `PRODUCT.releases`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import attrgetter

from updaterd.core import (
    attestation,
    attributes,
    json_fields,
    json_window,
    release_notes,
)
from updaterd.core import pace as paces
from updaterd.core.attestation import Attestation
from updaterd.core.attributes import Attributes, Folder, check_attributes
from updaterd.core.bundle import Delta, Full, read_delta, read_full
from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import Fields
from updaterd.core.json_window import JsonWindow, Read
from updaterd.core.listing import Listing, tree_id
from updaterd.core.listing import canonical as listing
from updaterd.core.listing import members as _listing
from updaterd.core.listing import read as _entries
from updaterd.core.names import check_name, check_version
from updaterd.core.pace import Pace
from updaterd.core.release_notes import Notes
from updaterd.core.special import Special, special
from updaterd.core.tree import (
    MAX_FILES,
    MAX_MEMORY,
    MODE_MASK,
    Entry,
    File,
    Link,
    check_link,
    check_path,
    check_tree,
    check_weight,
    weight,
)
from updaterd.core.understanding import check_understood, marks, needed
from updaterd.errors import MalformedError, NotUnderstoodError

__all__ = [
    "MAX_BYTES",
    "MAX_DELTAS",
    "MAX_FILES",
    "MODE_MASK",
    "Delta",
    "Entry",
    "File",
    "Full",
    "Link",
    "Manifest",
    "check_link",
    "check_path",
    "check_tree",
    "listing",
    "parse",
    "read",
    "tree_id",
]

MAX_BYTES = 24 * 2**20
"""Largest accepted manifest; a tree of 100,000 files needs about 15 MiB."""
MAX_VALUES = 1_000_000
"""Most items, members and containers in all; each listed file has five."""
MAX_DELTAS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One release of one product on one platform (contracts: `releases/VERSION`).

    Attributes:
        must_understand: names of members without which the rest is not to be used; an
            updaterd that does not know one passes the release over.
        attributes: what it carries beside its listing.
        attestations: what build systems say of it; files of their own.
        from_seq_min: lowest seq of an installed release that it can be installed over;
            0: any.
        pace: how soon which machines may install it; None: as soon as a channel says.
        notes: what it brings, for people; nothing is decided by them.
    """

    product: str
    version: str
    seq: int
    platform: str
    min_updater: str
    floor_seq: int
    files: tuple[Entry, ...]
    full: Full
    deltas: tuple[Delta, ...] = ()
    must_understand: tuple[str, ...] = ()
    attributes: Attributes = attributes.NONE
    attestations: tuple[Attestation, ...] = ()
    from_seq_min: int = 0
    pace: Pace | None = None
    notes: Notes = ()

    @property
    def blobs(self) -> tuple["Full | Delta | Attestation", ...]:
        """Return all files that it binds, each by `sha256` and `length`."""
        return (self.full, *self.deltas, *self.attestations)

    @property
    def tree(self) -> str:
        """Return the tree id of the listing."""
        return tree_id(self.files)

    def encode(self) -> bytes:
        """Return the bytes that are signed and served."""
        tree = self.tree if self.deltas else ""
        return json_fields.encode({
            **marks(self.must_understand),
            "product": self.product,
            "version": self.version,
            "seq": self.seq,
            "platform": self.platform,
            "min_updater": self.min_updater,
            "floor_seq": self.floor_seq,
            **({"from_seq_min": self.from_seq_min} if self.from_seq_min else {}),
            **({"pace": self.pace.as_member()} if self.pace else {}),
            **({"notes": dict(self.notes)} if self.notes else {}),
            "files": _listing(self.files),
            "full": _as_dict(self.full),
            "deltas": [self._edge(delta, tree) for delta in self.deltas],
            **self.attributes.members(),
            **(
                {"attestations": [_as_dict(entry) for entry in self.attestations]}
                if self.attestations
                else {}
            ),
        })

    def _edge(self, delta: Delta, tree: str) -> dict[str, object]:
        """Return an edge; one that leads to this very tree need not say so."""
        item = _as_dict(delta)
        if (delta.to_version, delta.to_tree) == (self.version, tree):
            del item["to_version"], item["to_tree"]
        return item


def _as_dict(item: Full | Delta | Attestation) -> dict[str, object]:
    return {name: getattr(item, name) for name in item.__dataclass_fields__}


def parse(raw: bytes, *, where: str = "manifest") -> Manifest:
    """Return the manifest in `raw`, checked whole; see `read`.

    Raises:
        MalformedError: anything is missing, out of range, or unsafe.
        NotUnderstoodError: it is made for a newer updaterd.
    """
    return read(json_window.of(raw), len(raw), where=where)


def read(source: Read, length: int, *, where: str = "manifest") -> Manifest:
    """Return a manifest, checked whole; what it is read from is never held whole.

    Args:
        source: the bytes; read more than once.
        length: how many there are.
        where: what the document is, for messages.

    Raises:
        MalformedError: anything is missing, out of range, or unsafe.
        NotUnderstoodError: it is made for a newer updaterd: what else is wrong with it
            here means nothing.
    """
    if length > MAX_BYTES:
        raise MalformedError(
            f"{where} has {length} bytes, the limit is {MAX_BYTES}", code="too_large"
        )
    json_window.check_count(source, where, MAX_VALUES)
    try:
        item, parts = _members(source, where)
        check_understood(item, _KNOWN)
        return _assembled(item, parts)
    except NotUnderstoodError:
        raise
    except MalformedError:
        check_understood(_header(source, where), _KNOWN)
        raise


_SMALL = frozenset({
    "schema", "must_understand", "product", "version", "seq", "platform", "min_updater",
    "floor_seq", "from_seq_min", "pace", "notes", "full", "attestations",
})  # fmt: skip
_KNOWN = _SMALL | {"files", "deltas", *attributes.MEMBERS}


class _Parts:
    """The large members of a manifest, as they come; all within one budget."""

    def __init__(self) -> None:
        self.files: list[Entry] | None = None
        self.deltas: list[Delta] | None = None
        self.folders: list[Folder] = []
        self.outside: list[Link] = []
        self.special: list[Special] = []
        self.times: Sequence[int] = ()
        self._room = MAX_MEMORY

    def take(self, document: JsonWindow, name: str) -> None:
        """Read the member called `name`.

        Raises:
            MalformedError: anything in it is out of range or unsafe.
        """
        match name:
            case "files":
                self.files = []
                for entry in _entries(document, MAX_FILES):
                    self._pay(weight(entry))
                    self.files.append(entry)
            case "deltas":
                deltas = _items(document, name, MAX_DELTAS)
                self.deltas = [read_delta(item) for item in deltas]
            case "folders":
                for item in _items(document, name, MAX_FILES):
                    self.folders.append(attributes.folder(item))
                    self._pay(attributes.weight(self.folders[-1]))
            case "outside":
                for item in _items(document, name, MAX_FILES):
                    self.outside.append(attributes.outside(item))
                    self._pay(attributes.weight(self.outside[-1]))
            case "special":
                for item in _items(document, name, MAX_FILES):
                    self.special.append(special(item))
                    self._pay(attributes.weight(self.special[-1]))
            case _:
                items = document.items(MAX_FILES)
                self.times = attributes.times(items, document.where)

    def _pay(self, count: int) -> None:
        self._room -= count
        check_weight(self._room)


def _members(source: Read, where: str) -> tuple[Fields, _Parts]:
    """Return what a manifest holds: small members, and the others.

    Raises:
        MalformedError: anything is out of range, unsafe, or no JSON.
    """
    document = JsonWindow(source, where)
    small: dict[str, object] = {}
    parts = _Parts()
    for name in document.members():
        if name in _SMALL:
            small[name] = document.value()
        elif name in _KNOWN:
            parts.take(document, name)
        else:
            document.skip()
    return Fields(small, where), parts


def _header(source: Read, where: str) -> Fields:
    """Return the members that say whether the rest is for this updaterd.

    Raises:
        MalformedError: it is no JSON.
    """
    document = JsonWindow(source, where)
    members: dict[str, object] = {}
    for name in document.members():
        if name in ("schema", "must_understand"):
            members[name] = document.value()
        else:
            document.skip()
    return Fields(members, where)


def _items(document: JsonWindow, name: str, most: int) -> Iterator[Fields]:
    for index, item in enumerate(document.items(most)):
        where = f"{document.where}: {name}[{index}]"
        if not isinstance(item, dict):
            raise MalformedError(f"{where} is not an object")
        yield Fields(item, where)


def _attestations(item: Fields) -> tuple[Attestation, ...]:
    if "attestations" not in item:
        return ()
    most = attestation.MAX_COUNT
    return item.objects("attestations", attestation.item, most=most)


def _notes(item: Fields) -> Notes:
    if "notes" not in item:
        return ()
    return release_notes.check(item.members("notes"), f"{item.where}: notes")


def _assembled(item: Fields, parts: _Parts) -> Manifest:
    """Return the manifest from its parts.

    Raises:
        MalformedError: they do not fit together, or one is missing.
    """
    files, deltas = parts.files, parts.deltas
    if files is None or deltas is None:
        missing = "files" if files is None else "deltas"
        raise MalformedError(f"{item.where}: {missing!r} is missing")
    more = Attributes(
        folders=tuple(parts.folders),
        outside=tuple(parts.outside),
        special=tuple(parts.special),
        times=parts.times,
    )
    version = check_version(item.text("version"))
    files.sort(key=attrgetter("path"))
    listed = Listing(files)
    leading = frozenset(link.path for link in more.outside)
    check_tree(listed, outside=leading, heavy=listed.weight)
    check_attributes(listed, more)
    tree = listed.tree if deltas else ""
    manifest = Manifest(
        product=check_name("product", item.text("product")),
        version=version,
        seq=item.integer("seq", low=1),
        platform=check_name("platform", item.text("platform")),
        min_updater=check_version(item.text("min_updater")),
        floor_seq=item.integer("floor_seq"),
        from_seq_min=item.integer("from_seq_min") if "from_seq_min" in item else 0,
        pace=paces.read(item.fields("pace")) if "pace" in item else None,
        notes=_notes(item),
        files=listed,
        full=read_full(item.fields("full")),
        deltas=tuple(
            edge if edge.to_tree else replace(edge, to_version=version, to_tree=tree)
            for edge in deltas
        ),
        must_understand=needed(item),
        attributes=more,
        attestations=_attestations(item),
    )
    total = sum(f.length for f in manifest.files if isinstance(f, File))
    if total != manifest.full.unpacked:
        raise MalformedError(
            f"{item.where}: the files add up to {total} bytes, "
            f"`unpacked` says {manifest.full.unpacked}"
        )
    return manifest
