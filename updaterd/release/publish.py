"""A release from a directory to the world, in an order that nothing can break.

    blobs -> manifests -> PRODUCT.releases, PRODUCT.CHANNEL -> snapshot -> timestamp
    -> announcement

Each step only adds files that nothing refers to yet; the last one before the
announcement makes all of them visible at once. Dying anywhere costs nothing but the
work: the same command, run again, finishes it.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from updaterd.core.channel import ChannelPointer, Offer, Rollout
from updaterd.core.manifest import Entry, Manifest, tree_id
from updaterd.core.names import check_name, check_version
from updaterd.errors import BrokenError, RejectedError
from updaterd.release import build
from updaterd.release.build import Built, Progress
from updaterd.release.catalog import LAST_SEQ, Catalog
from updaterd.release.repository import Repository
from updaterd.release.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be released, and how."""

    product: str
    version: str
    platform: str
    channel: str | None = None
    seq: int | None = None
    deltas: int = 5
    patches: tuple[tuple[str, Path], ...] = ()
    min_updater: str = "0.1.0"
    floor_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A release as it now stands in the repository."""

    manifest: Manifest
    fresh: bool
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def open_repository(workspace: Workspace, now: datetime) -> Repository:
    """Return the repository of a workspace, as published now.

    Raises:
        BrokenError: there is none.
    """
    metadata = workspace.public / "metadata"
    if not (metadata / "timestamp.json").exists():
        raise BrokenError(
            f"{metadata} holds no repository yet",
            do=f"finish it: `updaterd release init {workspace.folder}`",
            code="no_repository",
        )
    return Repository(metadata, workspace.keyring, now=now)


def catalog_of(workspace: Workspace, repository: Repository, product: str) -> Catalog:
    """Return the product's releases in the repository."""
    return Catalog(repository, workspace.public, product)


def prepare(
    workspace: Workspace,
    root: Path,
    order: Order,
    *,
    now: datetime,
    progress: Progress | None = None,
) -> Built | Added:
    """Build a release outside the lock; `Added` when it is already published.

    Raises:
        RejectedError: the version exists with other contents, the directory holds
            what no release may hold, or the order what no machine would accept.
        BrokenError: the repository does not know the product or the channel, or
            keys that must sign cannot be used here.
    """
    check_name("product", order.product)
    check_version(order.version)
    check_name("platform", order.platform)
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})*\w*", order.min_updater) is None:
        raise RejectedError(
            f"{order.min_updater!r:.80} is no version of updaterd",
            means="machines could not tell whether theirs is newer",
            do="give --min-updater as `updaterd --version` prints it",
            code="bad_min_updater",
        )
    repository = open_repository(workspace, now)
    catalog = catalog_of(workspace, repository, order.product)
    if order.channel is not None:
        catalog.pointer(order.channel)
    files = build.scan(root)
    if not files:
        raise RejectedError(
            f"{root} is empty", do="name the directory to release", code="empty_tree"
        )
    existing = _existing(catalog, order, files)
    if existing is not None:
        return existing
    # What would be refused at the end is refused before hours of building.
    below = _place(catalog, order)
    pointed = [f"{order.product}.{order.channel}"] if order.channel else []
    repository.require_keys(
        f"{order.product}.releases", *pointed, "snapshot", "timestamp"
    )
    return build.build(
        workspace,
        root,
        files,
        version=order.version,
        previous=catalog.newest(order.platform, order.deltas, below),
        given=[
            (_base(catalog, version, order.platform), patch)
            for version, patch in order.patches
        ],
        progress=progress,
    )


def _base(catalog: Catalog, version: str, platform: str) -> Manifest:
    """Return the manifest of the release that a given patch starts from.

    Raises:
        BrokenError: there is no such release.
    """
    found = catalog.find(version, platform)
    return catalog.manifest(found or catalog.require(version))


def _existing(catalog: Catalog, order: Order, files: tuple[Entry, ...]) -> Added | None:
    """Return the release when it is published already.

    Raises:
        RejectedError: it is, with other contents.
    """
    listed = catalog.find(order.version, order.platform)
    if listed is None:
        return None
    manifest = catalog.manifest(listed)
    if manifest.tree != tree_id(files):
        raise RejectedError(
            f"{order.product} {order.version} exists with other contents",
            means="a published release never changes",
            do="release under a new version",
            code="release_exists",
        )
    return Added(manifest=manifest, fresh=False)


def _place(catalog: Catalog, order: Order) -> int:
    """Return the seq that a new release gets.

    Raises:
        RejectedError: the one asked for is taken or lower than a release that exists,
            or the floor asked for forbids the release itself.
    """
    lowest = catalog.next_seq()
    same = catalog.find(order.version)  # another platform of the same release
    seq = same.seq if same else order.seq or lowest
    if same and order.seq not in {None, same.seq}:
        raise RejectedError(
            f"{order.version} has seq {same.seq} on another platform",
            code="seq_mismatch",
        )
    if not same and seq < lowest:
        raise RejectedError(
            f"seq {seq} is not above the newest release's {lowest - 1}",
            means="machines only go forward in seq",
            do=f"leave --seq away, or use at least {lowest}",
            code="seq_not_above",
        )
    if seq >= LAST_SEQ:
        raise RejectedError(
            f"seq {seq} leaves no place for what comes later",
            do=f"leave --seq away, or use less than {LAST_SEQ}",
            code="seq_exhausted",
        )
    if order.floor_seq > seq:
        raise RejectedError(
            f"the floor {order.floor_seq} is above the release's own seq {seq}",
            means="every machine would refuse it",
            do=f"give --floor-seq at most {seq}",
            code="floor_above",
        )
    return seq


def enter(catalog: Catalog, order: Order, built: Built) -> Added:
    """Give a built release its place in the order and enter it, unsigned as yet.

    Returns:
        As `prepare` does when somebody else published the same meanwhile.

    Raises:
        RejectedError: somebody else was faster with this version or its place.
    """
    existing = _existing(catalog, order, built.files)
    if existing is not None:
        return existing
    seq = _place(catalog, order)
    manifest = Manifest(
        product=order.product,
        version=order.version,
        seq=seq,
        platform=order.platform,
        min_updater=order.min_updater,
        floor_seq=order.floor_seq,
        files=built.files,
        full=built.full,
        deltas=built.deltas,
    )
    catalog.add(manifest)
    return Added(
        manifest=manifest, fresh=True, skipped=built.skipped, notes=built.notes
    )


def salt_of(product: str, version: str, seq: int) -> str:
    """Return the draw of a rollout: another for each release, the same on a re-run."""
    return hashlib.sha256(f"{product}/{version}/{seq}".encode()).hexdigest()[:16]


def offer(  # noqa: PLR0913
    pointer: ChannelPointer,
    version: str,
    seq: int,
    *,
    permille: int = 1000,
    window_s: int = 0,
    urgency: str = "normal",
) -> ChannelPointer:
    """Return the pointer with this release on top.

    What lies under a partial rollout stays: the rest of the machines gets that.
    """
    rollout = Rollout(
        permille=permille,
        salt=salt_of(pointer.product, version, seq),
        window_s=window_s,
    )
    top = Offer(version=version, seq=seq, rollout=rollout, urgency=urgency)
    below = [each for each in pointer.releases if each.version != version]
    return replace(pointer, releases=tuple(_needed([top, *below])))


def _needed(offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers up to the first that reaches every machine."""
    found: list[Offer] = []
    for each in offers[:16]:
        found.append(each)
        if each.rollout.permille >= 1000:
            break
    return found


def check_not_back(pointer: ChannelPointer, manifest: Manifest) -> None:
    """Refuse to offer an old release by pushing it again.

    Raises:
        RejectedError: the channel already offers a later one.
    """
    later = max((each.seq for each in pointer.releases), default=0)
    if later > manifest.seq:
        raise RejectedError(
            f"{manifest.product} {manifest.version} exists, and {pointer.channel} "
            f"already offers a later release (seq {later})",
            means="pushing it again would take machines back",
            do="if that is what you want: `updaterd release publish`",
            code="not_newest",
        )


def newest(pointer: ChannelPointer) -> Offer:
    """Return what a channel offers first.

    Raises:
        BrokenError: nothing.
    """
    if not pointer.releases:
        raise BrokenError(
            f"{pointer.product}/{pointer.channel} offers nothing yet",
            do="publish a release there first",
            code="empty_channel",
        )
    return pointer.releases[0]


def yank(catalog: Catalog, version: str) -> list[ChannelPointer]:
    """Withdraw a release from every channel and from its role.

    A channel that offered it alone goes back to the newest release below it.

    Returns:
        The pointers that changed.

    Raises:
        BrokenError: there is no such release.
    """
    gone = catalog.require(version)
    catalog.drop(version)
    changed = []
    for channel in catalog.channels():
        pointer = catalog.pointer(channel)
        left = tuple(each for each in pointer.releases if each.version != version)
        if len(left) == len(pointer.releases):
            continue
        pointer = replace(pointer, releases=left)
        below = next((each for each in catalog.listed() if each.seq < gone.seq), None)
        if not left and below is not None:
            pointer = offer(pointer, below.version, below.seq)
        catalog.point(pointer)
        changed.append(pointer)
    return changed
