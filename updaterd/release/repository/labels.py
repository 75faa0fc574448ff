# SPDX-License-Identifier: Apache-2.0
"""A label belongs to its tree for ever, also when the release is withdrawn.

Machines that have a release know it by its label and its listing. The same label on
other contents would leave them with a tree that nothing can repair or replace. So the
role PRODUCT.archive remembers the labels of releases that are listed no more:

    "x-updaterd-withdrawn": {VERSION: {"seq": SEQ, "trees": {PLATFORM: TREE}}}
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

FIELD = "x-updaterd-withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A withdrawn release's label.

    Attributes:
        seq: its place in the order, which is its own for ever, too.
        trees: platform -> tree id; an empty one fits nothing.
    """

    seq: int
    trees: dict[str, str] = field(default_factory=dict)


def read(member: Any, version: str) -> Label | None:
    """Return what a role remembers of a label; None: nothing."""
    try:
        item = member[version]
        trees = {str(name): str(tree) for name, tree in item["trees"].items()}
        return Label(seq=int(item["seq"]), trees=trees)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def remembering(
    member: Any, version: str, seq: int, trees: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """Return the role's member with a label added."""
    known = read(member, version)
    extended = dict(member) if isinstance(member, dict) else {}
    every = {**(known.trees if known else {}), **dict(trees)}
    extended[version] = {"seq": seq, "trees": every}
    return extended
