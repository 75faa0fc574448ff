# SPDX-License-Identifier: Apache-2.0
"""What is to be released, looked at before anything is built."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from updaterd.core import layout
from updaterd.core.attributes import Attributes
from updaterd.core.bundle_kinds import FIRST
from updaterd.core.manifest import Entry, Manifest, tree_id
from updaterd.core.names import check_name, check_version
from updaterd.core.release_notes import Notes
from updaterd.errors import BrokenError, RejectedError
from updaterd.release import attestations, losses, paces, tree
from updaterd.release.attestations import Attached
from updaterd.release.channels import steering, stones
from updaterd.release.paces import Profile
from updaterd.release.repository.catalog import Catalog
from updaterd.release.repository.metadata import Repository
from updaterd.release.repository.releases import LAST_SEQ, Releases
from updaterd.release.workspace import Workspace

PURPOSE = "balanced"
"""What bundles are made for unless somebody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be released, and how.

    Attributes:
        pace: how soon which machines may install it.
        pace_asked: somebody asked for it, for this release.
        drop: kinds of what no release carries that may be let go (`losses.KINDS`).
        carry: kinds of rights that machines are asked for (`special.KINDS`).
        outside_links: links that lead out of the tree are carried.
        strict_names: names that differ only by case are refused.
        latest: no file is said to be changed later than this; None: as it is.
        attest: files with attestations; those about other platforms are left out.
        memory: bytes that making bundles may take, about; None: `pool.BUDGET`.
        purpose: what bundles are made for (`exchange.RATES`).
    """

    product: str
    version: str
    platform: str
    channel: str | None = None
    seq: int | None = None
    deltas: int = 5
    patches: tuple[tuple[str, Path], ...] = ()
    min_updater: str = FIRST
    floor_seq: int = 0
    from_seq_min: int = 0
    pace: Profile = paces.NONE
    pace_asked: bool = False
    notes: Notes = ()
    drop: frozenset[str] = frozenset()
    carry: frozenset[str] = frozenset()
    outside_links: bool = False
    strict_names: bool = False
    strict: bool = False
    latest: int | None = None
    attest: tuple[Path, ...] = ()
    memory: int | None = None
    purpose: str = PURPOSE


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
    metadata = workspace.metadata
    if not (metadata / layout.TIMESTAMP).exists():
        raise BrokenError(
            f"{metadata} holds no repository yet",
            do=f"finish it: `updaterd release init {workspace.folder}`",
            code="no_repository",
        )
    return Repository(metadata, workspace.keyring, now=now)


def catalog_of(workspace: Workspace, repository: Repository, product: str) -> Catalog:
    """Return the product's releases in the repository."""
    return Catalog(repository, workspace.public, product)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A release that may be built.

    Attributes:
        order: what it is.
        root: the directory.
        files: its listing.
        previous: releases to make deltas from, newest first.
        patches: those made elsewhere, and what each starts from.
        attached: attestations, also of other platforms.
        attributes: what is carried beside the listing.
        notes: what the publisher should know of the tree.
    """

    order: Order
    root: Path
    files: tuple[Entry, ...]
    attributes: Attributes
    notes: tuple[str, ...]
    previous: tuple[Manifest, ...]
    patches: tuple[tuple[Manifest, Path], ...]
    attached: tuple[Attached, ...]


def examine(
    workspace: Workspace,
    root: Path,
    order: Order,
    *,
    now: datetime,
) -> Planned | Added:
    """Return a release as it may be built; what would be refused at the end, is now.

    Raises:
        RejectedError: as `prepare`.
        BrokenError: as `prepare`.
    """
    repository = open_repository(workspace, now)
    catalog = catalog_of(workspace, repository, order.product)
    if order.channel is not None:
        catalog.pointer(order.channel)
    planned = plan(catalog, root, order)
    if isinstance(planned, Added):
        return planned
    if order.channel is not None:
        stones.check(
            catalog,
            order.channel,
            order.version,
            seq=place(catalog, order),
            from_seq_min=order.from_seq_min,
            platform=order.platform,
        )
    roles = [layout.releases_role(order.product)]
    if order.channel:
        roles.append(layout.channel_role(order.product, order.channel))
    roles += [
        layout.channel_role(order.product, name)
        for name in catalog.remembering(order.version)
    ]
    repository.require_keys(*dict.fromkeys(roles), "snapshot", "timestamp")
    return planned


def plan(catalog: Releases, root: Path, order: Order) -> Planned | Added:
    """Return a release as it may be built, whoever signs it.

    Raises:
        RejectedError: as `prepare`.
        BrokenError: something cannot be read, or there is no such product.
    """
    check_name("product", order.product)
    check_version(order.version)
    check_name("platform", order.platform)
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})*\w*", order.min_updater) is None:
        raise RejectedError(
            f"{order.min_updater!r:.80} is not a version of updaterd",
            means="machines could not tell whether theirs is newer",
            do="give --min-updater as `updaterd --version` prints it",
            code="bad_min_updater",
        )
    attached = attestations.read_all(order.attest)
    surveyed = tree.survey(
        root,
        outside_links=order.outside_links,
        carry=order.carry,
        latest=order.latest,
    )
    files = surveyed.files
    if not files:
        raise RejectedError(
            f"{root} is empty", do="name the directory to release", code="empty_tree"
        )
    losses.require_dropped(surveyed.losses, order.drop)
    notes = (*surveyed.losses.notes(), *surveyed.case_notes(strict=order.strict_names))
    release = existing(catalog, order, files, surveyed.attributes)
    if release is not None:
        return release
    below = place(catalog, order)
    return Planned(
        order=order,
        root=root,
        files=files,
        attributes=surveyed.attributes,
        notes=notes,
        previous=catalog.newest(order.platform, order.deltas, below),
        patches=tuple(
            (_base(catalog, version, order.platform), patch)
            for version, patch in order.patches
        ),
        attached=attached,
    )


def check_wish(
    workspace: Workspace,
    orders: Sequence[Order],
    wish: steering.Wish,
    *,
    now: datetime,
) -> None:
    """Refuse, before anything is built, what the channel could not offer.

    Raises:
        RejectedError: the release would lack a platform that the channel has.
        BrokenError: the repository does not know the product or the channel.
    """
    for order in orders:
        check_version(order.version)
        check_name("platform", order.platform)
    first = orders[0]
    catalog = catalog_of(workspace, open_repository(workspace, now), first.product)
    if first.channel is None:
        return
    pointer = steering.spelled_out(catalog, first.channel)
    listed = catalog.releases()[1].get(first.version, ())
    seq = next(
        (entry.seq for entry in catalog.listed() if entry.version == first.version), 0
    )
    later = {
        name
        for standing in pointer.releases
        if seq and standing.seq > seq
        for name in standing.platforms or ()
    }
    made_for = {order.platform for order in orders} | set(listed) | later
    steering.check_platforms(pointer, first.version, made_for, wish.without)


def _base(catalog: Releases, version: str, platform: str) -> Manifest:
    """Return the manifest of the release that a given patch starts from.

    Raises:
        BrokenError: there is no such release.
    """
    listed = catalog.find(version, platform)
    return catalog.manifest(listed or catalog.require(version))


def existing(
    catalog: Releases, order: Order, files: tuple[Entry, ...], more: Attributes
) -> Added | None:
    """Return the release when it is published already.

    Raises:
        RejectedError: it is, with other contents, or unlike what is asked for now.
    """
    listed = catalog.find(order.version, order.platform)
    if listed is None:
        catalog.check_label(order.version, order.platform, tree_id(files))
        return None
    manifest = catalog.manifest(listed)
    if manifest.tree != tree_id(files) or (
        # A checkout has other times each time.
        replace(manifest.attributes, times=()) != replace(more, times=())
    ):
        raise RejectedError(
            f"{order.product} {order.version} exists with other contents",
            means="a published release never changes",
            do="release under a new version",
            code="release_exists",
        )
    _check_asked(order, manifest)
    options = (
        ("--for", order.purpose != PURPOSE),
        ("--memory", order.memory is not None),
    )
    names = " and ".join(name for name, is_given in options if is_given)
    note = f"its bundles stay as they were made: {names} changed nothing"
    return Added(manifest=manifest, fresh=False, notes=(note,) if names else ())


def _check_asked(order: Order, manifest: Manifest) -> None:
    """Refuse what is asked of a published release, and was not when it was made.

    What is not asked for (its default) says nothing.

    Raises:
        RejectedError: some of it is.
    """
    options = (
        ("--seq", order.seq, manifest.seq),
        ("--floor-seq", order.floor_seq, manifest.floor_seq),
        ("--from-seq-min", order.from_seq_min, manifest.from_seq_min),
        ("--min-updater", order.min_updater, manifest.min_updater),
        ("--notes", order.notes, manifest.notes),
    )
    others = [
        f"{option} {_short(value)}, published with {_short(published)}"
        for option, value, published in options
        if value not in {None, 0, (), FIRST, published}
    ]
    if order.pace_asked and not order.pace.is_of(manifest.pace):
        pace, published = (
            str(pace) if pace else paces.AT_ONCE
            for pace in (order.pace.starting(0), manifest.pace)
        )
        others.append(f"--pace {pace}, published with {published}")
    if others:
        raise RejectedError(
            f"{order.product} {order.version} exists, made with other options: "
            + "; ".join(others),
            means="a published release never changes; nothing was done",
            do="leave these options away, or release under a new version",
            code="release_exists",
        )


def _short(value: int | str | Notes | None) -> str:
    """Return what was asked for, as a message shows it."""
    if isinstance(value, tuple):
        texts = (f"{language}={text[:30]!r}" for language, text in value)
        return ", ".join(texts) or "none"
    return str(value or "none")


def place(catalog: Releases, order: Order) -> int:
    """Return the seq that a new release gets.

    Raises:
        RejectedError: the one asked for is taken or lower than a release that exists,
            or the floor asked for forbids the release itself.
    """
    lowest = catalog.next_seq()
    # Another platform of the same release, or that release before it was withdrawn.
    same = catalog.find(order.version) or catalog.withdrawn(order.version)
    seq = same.seq if same else order.seq or lowest
    if same and order.seq not in {None, same.seq}:
        raise RejectedError(
            f"{order.version} has seq {same.seq} already",
            do="leave --seq away",
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
            f"seq {seq} leaves no number for later releases",
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
    if order.from_seq_min >= seq:
        raise RejectedError(
            f"--from-seq-min {order.from_seq_min} is not below the release's own seq "
            f"{seq}",
            means="no machine that has a release could install it",
            do=f"give --from-seq-min less than {seq}",
            code="from_seq_above",
        )
    return seq
