# SPDX-License-Identifier: Apache-2.0
"""Bundles, as a manifest binds them: a full one, and deltas between trees."""

from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import Fields
from updaterd.core.names import check_version


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


def read_full(item: Fields) -> Full:
    """Read a full bundle."""
    return Full(
        sha256=item.hexdigest("sha256"),
        length=item.integer("length", low=1),
        unpacked=item.integer("unpacked"),
        codec=item.text("codec", longest=32),
    )


def read_delta(item: Fields) -> Delta:
    """Return an edge; without a target it is one to the tree of the manifest itself."""
    is_own = "to_version" not in item and "to_tree" not in item
    return Delta(
        from_version=check_version(item.text("from_version")),
        from_tree=item.hexdigest("from_tree"),
        to_version="" if is_own else check_version(item.text("to_version")),
        to_tree="" if is_own else item.hexdigest("to_tree"),
        sha256=item.hexdigest("sha256"),
        length=item.integer("length", low=1),
        codec=item.text("codec", longest=32),
        memory=item.integer("memory"),
    )
