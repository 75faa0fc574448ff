# SPDX-License-Identifier: Apache-2.0
"""A destination as it is, and whether a repository may be published over it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as changed

from tuf.api.metadata import Metadata, Timestamp

from updaterd.core import layout
from updaterd.errors import BrokenError, RejectedError
from updaterd.net import NotFoundError
from updaterd.release.destinations.contract import (
    Destination,
    Held,
    Stored,
)
from updaterd.release.repository.catalog import Catalog, products
from updaterd.release.repository.metadata import Repository
from updaterd.release.upkeep.outside import Out, Served, behind
from updaterd.release.workspace import Workspace
from updaterd.trust.updater import LIMITS

POINTER = f"{layout.METADATA}/{layout.TIMESTAMP}"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A destination as it was looked at.

    Attributes:
        stored: what is there.
        held: its timestamp.
        out: what that says, as far as it verifies, and the newest editions that lie
            there; None: nothing that counts.
        parted: its snapshot is another than the repository's of the same version.
        known: the editions that it refers to, where its snapshot is the repository's
            own, byte for byte: they need no further look.
    """

    stored: Mapping[str, Stored]
    held: Held | None
    out: Out | None = None
    parted: bool = False
    known: frozenset[str] = frozenset()


class _Reader:
    """A destination, read as what is out: what was listed, and one timestamp."""

    def __init__(
        self,
        destination: Destination,
        stored: Mapping[str, Stored],
        held: Held | None,
    ) -> None:
        self._destination = destination
        self._stored = stored
        self._held = held

    def get(self, url: str, *, limit: int) -> bytes:
        """Return a file; see `outside.Reader`.

        Raises:
            NotFoundError: there is none.
        """
        path = url.removeprefix(f"{self._destination.address}/")
        held = (
            self._held
            if path == POINTER
            else self._destination.read(path, limit)
            if path in self._stored
            else None
        )
        if held is None:
            raise NotFoundError(404, url)
        return held.data


def served_from(destination: Destination) -> Served:
    """Return a destination as something that serves a repository."""
    reader = _Reader(destination, destination.stored(), _pointer(destination))
    return Served(reader, destination.address)


def look(destination: Destination, repository: Repository) -> View:
    """Return a destination as it is, judged by the repository's keys.

    Editions that lie there unreferred count, too: another publisher was, or is, about
    to refer to them.

    Raises:
        TransientError: it cannot be asked now.
        BrokenError: it needs a person.
        ForeignError: what is there is another repository.
    """
    held = _pointer(destination)
    stored = destination.stored()
    served = Served(_Reader(destination, stored, held), destination.address)
    out = served.look(repository)
    if out is None:
        return View(stored=stored, held=held)
    snapshot = layout.role_file("snapshot", out.versions["snapshot"])
    own = repository.raw(snapshot)
    is_ours = bool(own) and own == out.snapshot
    return View(
        stored=stored,
        held=held,
        out=changed(out, versions=_with_editions(out.versions, stored, repository)),
        parted=bool(own and out.snapshot) and not is_ours,
        known=frozenset(_referred_by(out)) if is_ours else frozenset(),
    )


def compare(
    workspace: Workspace,
    repository: Repository,
    destination: Destination,
    view: View,
    *,
    recovered: bool = False,
) -> None:
    """Refuse to publish over what this repository does not come from.

    Args:
        workspace: where the repository is.
        repository: what is to be published.
        destination: where.
        view: what is there.
        recovered: it goes on past what is there, whatever way that went.

    Raises:
        behind: it is newer than this repository.
        _parted: or went another way.
    """
    if view.out is None:
        return
    ahead = view.out.ahead_of(repository)
    if ahead:
        raise behind(destination.address, ahead)
    if recovered:
        return
    if view.parted:
        raise _parted(destination, "both have signed since they were the same")
    unknown = [] if view.known else _unknown(workspace, repository, destination, view)
    if unknown:
        names = ", ".join(unknown[:5])
        raise _parted(destination, f"it has {names}, which was never here")


def _pointer(destination: Destination) -> Held | None:
    return destination.read(POINTER, LIMITS.timestamp_max_length)


def _referred_by(out: Out) -> Iterator[str]:
    """Yield the editions that what is out refers to."""
    metadata: Metadata[Timestamp] = Metadata.from_bytes(out.timestamp)
    root = metadata.signed.unrecognized_fields.get("x-updaterd-root", 0)
    roots = [("root", version) for version in range(1, int(root) + 1)]
    for role, version in (*out.versions.items(), *roots):
        yield f"{layout.METADATA}/{layout.role_file(role, version)}"


def _with_editions(
    versions: Mapping[str, int], stored: Mapping[str, Stored], repository: Repository
) -> dict[str, int]:
    """Return the newest edition of each role that lies there, referred to or not."""
    newest = dict(versions)
    for path in stored:
        folder, _, name = path.rpartition("/")
        number, _, rest = name.partition(".")
        role = layout.stem(rest)
        if folder == layout.METADATA and number.isdigit() and role in repository.roles:
            newest[role] = max(newest.get(role, 0), int(number))
    newest.pop("root", None)  # judged by the chain
    return newest


def _unknown(
    workspace: Workspace, repository: Repository, destination: Destination, view: View
) -> list[str]:
    """Return the releases that are there and were never here."""
    assert view.out is not None
    reader = _Reader(destination, view.stored, view.held)
    served = Served(reader, destination.address)
    unknown = []
    for product in products(repository):
        catalog = Catalog(repository, workspace.public, product)
        for role in (layout.releases_role(product), layout.archive_role(product)):
            version = view.out.versions.get(role)
            if version is None:
                continue
            try:
                signed = served.role(role, version, repository.targets()).signed
            except (NotFoundError, RejectedError):
                continue
            for path in signed.targets:
                label, platform = layout.release_of(path)
                if not (catalog.find(label, platform) or catalog.withdrawn(label)):
                    unknown.append(f"{product} {label}")
    return sorted(set(unknown))


def _parted(destination: Destination, why: str) -> BrokenError:
    return BrokenError(
        f"{destination.address} holds another history than this repository: {why}",
        means="what was published there from elsewhere would be lost; it was left as "
        "it is",
        do="publish from one place; bring its public/ here, or go on from this one: "
        "`updaterd release recover`",
        code="destination_parted",
    )
