# SPDX-License-Identifier: Apache-2.0
"""The listing of a tree: its canonical bytes, its tree id, and how it is read.

The *tree id* is the sha256 of the canonical listing; deltas say by it which tree they
start from and which they make. A large one takes a tenth of a second to hash, and is
asked for a dozen times in one update, so a `Listing` remembers it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from json.encoder import encode_basestring as quoted
from operator import attrgetter

from updaterd.core.json_fields import Fields
from updaterd.core.json_window import JsonWindow
from updaterd.core.tree import (
    MODE_MASK,
    Entry,
    File,
    Link,
    check_link,
    check_path,
    weight,
)
from updaterd.errors import MalformedError

_BATCH = 512
_SURELY = 255
"""Characters of a plain path that is too short for any of `check_path`'s limits."""
_NAME = r"\.{0,2}[\w@+=~,#%$!()&' -][\w@+=~,#%$!()&' .-]*+"
# A file as publishers write it, of which nothing is left to check but the mode: no
# number beyond 2^53, no path with an empty name, `.`, `..` or a character nobody sees.
_PLAIN = re.compile(
    r'\{"length":(0|[1-9][0-9]{0,14}),"mode":(0|[1-9][0-9]{0,2}),'
    rf'"path":"({_NAME}(?:/{_NAME}){{0,90}}+)","sha256":"([0-9a-f]{{64}})"\}}',
    re.ASCII,
)
_MODES = {str(mode): mode for mode in range(0o1000) if not mode & ~MODE_MASK}
"""Every mode that a file may have, as written: one number object for all files."""


class Listing(tuple[Entry, ...]):  # noqa: SLOT001 - no tuple has room for one
    """What a tree holds, sorted by path; knows what was asked of all of it before."""

    _tree = ""
    _weight = 0

    @property
    def tree(self) -> str:
        """Return the tree id."""
        if not self._tree:
            self._tree = _hash_of(self)
        return self._tree

    @property
    def weight(self) -> int:
        """Return about how many bytes it takes in memory."""
        if not self._weight:
            self._weight = sum(map(weight, self))
        return self._weight


def weight_of(files: Iterable[Entry]) -> int:
    """Return about how many bytes a listing takes in memory."""
    return files.weight if isinstance(files, Listing) else sum(map(weight, files))


def canonical(files: Iterable[Entry]) -> bytes:
    """Return the canonical listing: its SHA-256 is the tree id."""
    ordered = sorted(files, key=attrgetter("path"))
    return f"[{','.join(map(_encoded, ordered))}]\n".encode()


def tree_id(files: Iterable[Entry]) -> str:
    """Return the sha256 of the canonical listing, entries sorted by path."""
    if isinstance(files, Listing):
        return files.tree
    return _hash_of(sorted(files, key=attrgetter("path")))  # by code points, as bytes


def _hash_of(ordered: Sequence[Entry]) -> str:
    state = hashlib.sha256(b"[")
    for start in range(0, len(ordered), _BATCH):
        batch = ",".join(map(_encoded, ordered[start : start + _BATCH]))
        state.update(f",{batch}".encode() if start else batch.encode())
    state.update(b"]\n")
    return state.hexdigest()


def _encoded(entry: Entry) -> str:
    """Return an entry as `json_fields.encode` would: names sorted, no spaces."""
    path = quoted(entry.path)
    if isinstance(entry, Link):
        return f'{{"path":{path},"symlink":{quoted(entry.target)}}}'
    sha256 = quoted(entry.sha256)
    return (
        f'{{"length":{entry.length},"mode":{entry.mode},"path":{path},'
        f'"sha256":{sha256}}}'
    )


def members(files: Iterable[Entry]) -> list[dict[str, object]]:
    """Return a listing as a manifest has it."""
    return [
        {"path": entry.path, "symlink": entry.target}
        if isinstance(entry, Link)
        else {
            "path": entry.path,
            "sha256": entry.sha256,
            "length": entry.length,
            "mode": entry.mode,
        }
        for entry in files
    ]


def read(document: JsonWindow, most: int) -> Iterator[Entry]:
    """Yield the entries of a manifest's `files`, each checked by itself.

    Raises:
        MalformedError: one is out of range or unsafe, or there are more than `most`.
    """
    for index, item in enumerate(document.items(most, like=_PLAIN)):
        if isinstance(item, tuple):
            length, number, path, sha256 = item
            mode = _MODES.get(number)
            if mode is not None and len(path) <= _SURELY:
                yield File(path, sha256, int(length), mode)
                continue
            item = {  # noqa: PLW2901 - as the parser would have given it
                "path": path,
                "sha256": sha256,
                "length": int(length),
                "mode": int(number),
            }
        where = f"{document.where}: files[{index}]"
        if not isinstance(item, dict):
            raise MalformedError(f"{where} is not an object")
        yield _entry(Fields(item, where))


def _entry(item: Fields) -> Entry:
    path = check_path(item.text("path", longest=1024))
    if "symlink" in item:
        return Link(path, check_link(path, item.text("symlink", longest=1024)))
    mode = item.integer("mode", high=0o777)
    if mode & ~MODE_MASK:
        raise MalformedError(f"{item.where}: mode {mode:o} is not allowed")
    sha256, length = item.hexdigest("sha256"), item.integer("length")
    return File(path, sha256, length, _MODES[str(mode)])
