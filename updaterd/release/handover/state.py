# SPDX-License-Identifier: Apache-2.0
"""What is published of a product: who may sign, and which releases there are.

Seen through signatures only, from a root that is trusted at that place: it may come
from an address, a copy, or the release file that a builder made.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from updaterd.core import layout
from updaterd.core import manifest as manifests
from updaterd.errors import BrokenError, RejectedError, TransientError
from updaterd.net import Fetcher, NotFoundError
from updaterd.release.keys.keyring import Keyring
from updaterd.release.repository.metadata import Repository
from updaterd.release.repository.published import versions
from updaterd.release.repository.releases import Releases

MAX_ROOTS = 256
_MAX_ROLE = 32 * 2**20


class Source(Protocol):
    """Where published files are read from."""

    @property
    def name(self) -> str:
        """Return what it is called in messages."""

    def get(self, path: str, limit: int) -> bytes | None:
        """Return a file by its path in `public/`; None: it is not there."""


class Folder:
    """A copy of `public/`, or of its `metadata/` alone.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_metadata = (path / layout.TIMESTAMP).exists()
        self.name = str(path)

    def get(self, path: str, limit: int) -> bytes | None:
        """Return a file by its path in `public/`; None: it is not there.

        Raises:
            RejectedError: it is larger than any such file.
            _untrusted: that refusal.
        """
        if self._is_metadata:
            path = path.removeprefix(f"{layout.METADATA}/")
        try:
            with (self._path / path).open("rb") as file:
                raw = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(raw) > limit:
            raise _untrusted(f"{self._path / path} has more than {limit} bytes")
        return raw


class Address:
    """A repository at its address.

    Args:
        fetcher: asks the network.
        address: of the directory that holds `metadata/`.
    """

    def __init__(self, fetcher: Fetcher, address: str) -> None:
        self._fetcher = fetcher
        self.name = address.rstrip("/")

    def get(self, path: str, limit: int) -> bytes | None:
        """Return a file by its path in `public/`; None: it is not there.

        Raises:
            TransientError: it cannot be asked for now.
        """
        try:
            return self._fetcher.get(f"{self.name}/{path}", limit=limit)
        except NotFoundError:
            return None
        except TransientError as error:
            error.means = "what is published there is not known; nothing was built"
            error.do = (
                "check the address and the way to it; or --from a copy of public/"
            )
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is published of a product, verified.

    Attributes:
        product: its name.
        files: signed files by their name, as they were read.
        root: the newest.
        roles: `targets`, the product's releases and its archive.
    """

    product: str
    files: Mapping[str, bytes]
    root: Metadata[Root]
    roles: Mapping[str, Metadata[Any]]

    @property
    def place(self) -> tuple[int, ...]:
        """Return what grows with every change: versions of root and roles."""
        versions = (role.signed.version for role in self.roles.values())
        return (self.root.signed.version, *versions)

    def repository(self, folder: Path, keyring: Keyring, now: datetime) -> Repository:
        """Return it as a repository to try changes in; it cannot be committed."""
        roles = {name: _copy(role) for name, role in self.roles.items()}
        roles["root"] = self.root
        return Repository.detached(folder, keyring, now=now, roles=roles)


class Listing(Releases):
    """The releases of a product, without the files of a repository.

    Args:
        repository: its roles.
        product: name of the product.
        load: returns a published manifest by its target; b"": it cannot be had.

    Attributes:
        loaded: published manifests that were read, by hash.
        stored: new ones, by path of target.
    """

    def __init__(
        self,
        repository: Repository,
        product: str,
        load: Callable[[TargetFile], bytes],
    ) -> None:
        super().__init__(repository, Path(), product)
        repository.is_draft = True
        self._from = load
        self.loaded: dict[str, bytes] = {}
        self.stored: dict[str, tuple[TargetFile, bytes]] = {}

    def _load(self, target: TargetFile) -> bytes:
        if target.path in self.stored:
            return self.stored[target.path][1]
        raw = self._from(target)
        self.loaded[hashlib.sha256(raw).hexdigest()] = raw
        return raw

    def _store(self, target: TargetFile, data: bytes) -> None:
        self.stored[target.path] = (target, data)


def manifests_at(source: Source) -> Callable[[TargetFile], bytes]:
    """Return what loads published manifests from a source."""

    def load(target: TargetFile) -> bytes:
        path = layout.target_file(target.path, target.hashes["sha256"])
        return source.get(path, manifests.MAX_BYTES) or b""

    return load


def newest_root(folder: Path) -> Metadata[Root]:
    """Return the newest root in a directory of metadata: what is trusted there.

    Raises:
        BrokenError: there is none that can be read.
    """
    try:
        newest = max(versions(folder, "root"))
        return _root((folder / layout.role_file("root", newest)).read_bytes())
    except (OSError, ValueError) as error:
        raise BrokenError(
            f"there is no root in {folder}",
            means="nothing can be verified without it",
            do="put the repository's 1.root.json there",
            code="bad_root",
        ) from error


def root_from(path: Path) -> Metadata[Root]:
    """Return the root in a file.

    Raises:
        BrokenError: it is none.
    """
    try:
        return _root(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BrokenError(
            f"{path} is not a root: {error}",
            do="name the repository's 1.root.json",
            code="bad_root",
        ) from error


def _root(raw: bytes) -> Metadata[Root]:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
    except RepositoryError as error:
        raise ValueError(str(error)) from error
    if not isinstance(metadata.signed, Root):
        raise ValueError(f"it is a {metadata.signed.type}")  # noqa: TRY004 - of files
    return metadata


def look(
    source: Source,
    trusted: Metadata[Root],
    product: str,
    *,
    now: datetime,
    is_old: bool = False,
) -> State:
    """Return what is published, as a source has it.

    Args:
        source: where it is read from.
        trusted: the root that vouches for it.
        product: whose releases.
        now: the time.
        is_old: it may have expired: something newer may be known, too.

    Raises:
        RejectedError: the trusted root does not vouch for it, or it has expired.
        BrokenError: there is no repository, or no such product.
        TransientError: it cannot be asked for now.
        _untrusted: that refusal.
        _no_product: that refusal.
    """

    def get(name: str) -> bytes:
        raw = source.get(f"{layout.METADATA}/{name}", _MAX_ROLE)
        if raw is None:
            raise BrokenError(
                f"{source.name} has no {name}",
                means="what is published cannot be seen there",
                do="name the address, or a whole copy, of public/",
                code="no_repository",
            )
        return raw

    files = _roots(source, trusted)
    root = _chain(files, trusted)
    timestamp = _judged(get(layout.TIMESTAMP), "timestamp", root.signed)
    if not is_old:
        _check_fresh(source.name, timestamp, now)
    at = timestamp.signed.snapshot_meta.version
    snapshot = _judged(get(layout.role_file("snapshot", at)), "snapshot", root.signed)
    if not is_old:
        _check_fresh(source.name, snapshot, now)
    for role in _roles(product):
        meta = snapshot.signed.meta.get(layout.role_file(role))
        if meta is None:
            raise _no_product(product)
        files[layout.role_file(role)] = get(layout.role_file(role, meta.version))
    state = judge(files, trusted, product)
    for role, metadata in state.roles.items():
        if metadata.signed.version != snapshot.signed.meta[f"{role}.json"].version:
            raise _untrusted(f"{role} at {source.name} is of another version")
    return state


def _roots(source: Source, trusted: Metadata[Root]) -> dict[str, bytes]:
    """Return the roots that follow a trusted one, and itself; not verified."""
    version = trusted.signed.version
    files = {layout.role_file("root", version): trusted.to_bytes()}
    for number in range(version + 1, version + MAX_ROOTS):
        name = layout.role_file("root", number)
        raw = source.get(f"{layout.METADATA}/{name}", _MAX_ROLE)
        if raw is None:
            break
        files[name] = raw
    return files


def judge(files: Mapping[str, bytes], trusted: Metadata[Root], product: str) -> State:
    """Return what signed files say is published; how fresh that is, they do not.

    Args:
        files: roots, `targets`, the product's releases and archive, by name.
        trusted: the root that vouches for them.
        product: whose releases.

    Raises:
        RejectedError: the trusted root does not vouch for them.
        _untrusted: that refusal.
    """
    root = _chain(files, trusted)
    roles: dict[str, Metadata[Any]] = {}
    judges: Root | Targets = root.signed
    for role in _roles(product):
        raw = files.get(layout.role_file(role))
        if raw is None:
            raise _untrusted(f"{role} is missing")
        roles[role] = _judged(raw, role, judges)
        judges = roles["targets"].signed
    return State(product=product, files=dict(files), root=root, roles=roles)


def _roles(product: str) -> tuple[str, str, str]:
    return "targets", layout.releases_role(product), layout.archive_role(product)


def _chain(files: Mapping[str, bytes], trusted: Metadata[Root]) -> Metadata[Root]:
    """Return the newest root that a trusted one leads to.

    Raises:
        RejectedError: one of them was not signed by the one before it.
        _untrusted: that refusal.
    """
    newest = trusted
    while raw := files.get(layout.role_file("root", newest.signed.version + 1)):
        try:
            following = _root(raw)
            for signed in (newest.signed, following.signed):
                signed.verify_delegate(
                    "root", following.signed_bytes, following.signatures
                )
        except (RepositoryError, ValueError) as error:
            raise _untrusted(f"root {newest.signed.version + 1}: {error}") from error
        if following.signed.version != newest.signed.version + 1:
            raise _untrusted("a root has another version than its name")
        newest = following
    return newest


def _judged(raw: bytes, role: str, signed: Root | Targets) -> Metadata[Any]:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
        signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise _untrusted(f"{role}: {error}") from error
    kind = role if role in {"snapshot", "timestamp"} else "targets"
    if metadata.signed.type != kind:
        raise _untrusted(f"{role} is a {metadata.signed.type}")
    return metadata


def _check_fresh(source: str, metadata: Metadata[Any], now: datetime) -> None:
    if metadata.signed.is_expired(now):
        raise RejectedError(
            f"the {metadata.signed.type} at {source} expired at "
            f"{metadata.signed.expires:%Y-%m-%d %H:%M} UTC",
            means="it may be an old copy; what was published since cannot be seen",
            do="take a newer copy; `updaterd release refresh` where it is published; "
            "check the clock",
            code="metadata_expired",
        )


def _untrusted(cause: str) -> RejectedError:
    return RejectedError(
        f"what is said to be published cannot be trusted: {cause}",
        means="the root that is trusted here does not vouch for it; nothing was signed",
        do="compare the root with the publisher's; take a fresh copy of public/",
        code="state_untrusted",
    )


def _no_product(product: str) -> BrokenError:
    return BrokenError(
        f"the repository has no product {product!r}",
        do=f"`updaterd release keys add-product {product}` delegates to it",
        code="no_such_role",
    )


def _copy(metadata: Metadata[Any]) -> Metadata[Any]:
    """Return metadata that can be changed without changing the other."""
    return Metadata.from_bytes(metadata.to_bytes())
