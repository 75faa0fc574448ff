# SPDX-License-Identifier: Apache-2.0
"""Product roots: where one may be, whose it must be, and that no two are one tree.

Asked by `config check`, by the daemon when it starts, and by every run before it
touches anything: a folder that was right yesterday may be another's today.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from updaterd.core import reserved
from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Product
from updaterd.errors import BrokenError
from updaterd.files import ownership, volumes

_INSIDE = ("releases", ".updaterd", "releases/.updaterd")
_LAYOUT = frozenset({"releases", ".updaterd", "current", "previous"})

Id = tuple[int, int]


class UnsafeRootError(BrokenError):
    """A product's root is not the product's alone."""

    code = "unsafe_root"


def check(product: Product, trusted: frozenset[int] | None = None) -> Path:
    """Check a product's root; return it without links.

    Args:
        product: what is kept there.
        trusted: users who may own and write it; by default root and the one who asks:
            root itself never works in a tree that another user may write.

    Raises:
        UnsafeRootError: others can write it or put another folder in its place, it
            is the system's, or a part of it is a link.
    """
    if trusted is None:
        trusted = ownership.owners()
    # before anything else is asked of it: the answer to that could change meanwhile
    why = ownership.fault(product.root, trusted)
    root = Path(product.root if why else os.path.realpath(product.root))
    if why := why or _inside(root, trusted):
        raise UnsafeRootError(
            f"product {product.name} cannot be kept in {product.root}: {why}",
            means="another user could put something else in place of a release",
            do="let only root, or the daemon's user, own and write it and the folders "
            "on the way; or choose another root",
        )
    if why := reserved.fault(product.root) or reserved.fault(root) or _foreign(root):
        raise UnsafeRootError(
            f"product {product.name} cannot be kept in {product.root}: {why}",
            means="updaterd would replace and delete what is not the product's",
            do="give the product a folder of its own, such as /opt/acme",
        )
    return root


def _inside(root: Path, trusted: frozenset[int]) -> str:
    """Return what is wrong with the folders that updaterd makes in a root."""
    for path in (root, *(root / name for name in _INSIDE)):
        try:
            mode = path.lstat().st_mode
        except OSError:
            continue  # what is not there, or closed, is told by whoever needs it
        if stat.S_ISLNK(mode):
            return f"{path} is a link; for another disk, mount it there"
        if not stat.S_ISDIR(mode):
            return f"{path} is not a folder"
        why = ownership.fault(path, trusted)
        if why and not (path == root / "releases" and _is_closable(root)):
            return why
    return ""


def close(product: Product) -> None:
    """Take others' right to write from a file system that was mounted on `releases`.

    A new tmpfs is everybody's, like `/tmp`. Only while all that is in it is ours: what
    another user has put there stays his, and `check` refuses it.

    Raises:
        OSError: the mode cannot be changed.
    """
    root = Path(os.path.realpath(product.root))
    if not _is_closable(root):
        return
    fd = os.open(root / "releases", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.fchmod(fd, mode & ~0o1022)
        if not _is_ours(fd):  # somebody was faster
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _is_closable(root: Path) -> bool:
    """Tell whether `releases` is another mount, open to all, and all in it ours."""
    releases = root / "releases"
    try:
        if volumes.same(root, releases):
            return False
        fd = os.open(releases, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return bool(os.fstat(fd).st_mode & 0o022) and _is_ours(fd)
    finally:
        os.close(fd)


def _is_ours(directory: int) -> bool:
    """Tell whether an open directory and all that is in it belong to this user."""
    owners = {os.fstat(directory).st_uid}
    with os.scandir(directory) as items:
        owners |= {item.stat(follow_symlinks=False).st_uid for item in items}
    return owners == {os.geteuid()}


def _foreign(root: Path) -> str:
    """Return why a folder in /var/lib is not a product's, or nothing."""
    if root.parent != Path("/var/lib"):
        return ""
    try:
        held = os.listdir(root)
    except OSError:
        return ""
    if held and not _LAYOUT & set(held):
        return f"it holds {held[0]!r:.60}, and nothing of updaterd's"
    return ""


def shared(products: Iterable[Product]) -> list[str]:
    """Return which products would share a tree, whatever the spelling.

    By a link, `..` or a bind mount it is the same tree: names and inodes count.
    """
    ordered = sorted(
        (Path(os.path.realpath(product.root)), product.name) for product in products
    )
    faults = [
        _shared(name, other, outer)
        for (outer, name), (inner, other) in pairwise(ordered)
        if inner.is_relative_to(outer)
    ]
    if faults:
        return faults
    owned: dict[Id, tuple[str, Path]] = {}
    pairs: dict[tuple[str, str], Path] = {}
    for root, name in ordered:
        for folder in _own(root):
            other, place = owned.setdefault(folder.id, (name, folder.path))
            if other != name:
                pairs.setdefault((other, name), place)
    for root, name in ordered:
        for ident in filter(None, map(_id, root.parents)):
            other, place = owned.get(ident, (name, root))
            if other != name:
                pairs.setdefault((min(other, name), max(other, name)), place)
    return [_shared(name, other, where) for (name, other), where in pairs.items()]


def _shared(name: str, other: str, where: Path) -> str:
    return f"products.{name} and products.{other} share {where}"


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path
    id: Id


def _own(root: Path) -> Iterator[_Folder]:
    """Yield the folders that are a product's: its root and what updaterd has there."""
    try:
        versions = list((root / "releases").iterdir())
    except OSError:
        versions = []
    for path in (root, *(root / name for name in _INSIDE), *versions):
        if (ident := _id(path)) is not None:
            yield _Folder(path, ident)


def _id(path: Path) -> Id | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
