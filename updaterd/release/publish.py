# SPDX-License-Identifier: Apache-2.0
"""A release from a directory to the world, in an order that nothing can break.

    blobs -> manifests -> PRODUCT.releases, PRODUCT.CHANNEL -> snapshot -> timestamp
    -> announcement

Each step only adds files that nothing refers to yet; the last one before the
announcement makes all of them visible at once. Dying anywhere costs nothing but the
work: the same command, run again, finishes it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from updaterd.core.channel import ChannelPointer
from updaterd.core.manifest import Manifest
from updaterd.core.pace import Pace
from updaterd.release import attestations, build
from updaterd.release.build import Built
from updaterd.release.bundles.packing import exchange
from updaterd.release.channels import steering, withdrawal
from updaterd.release.channels.offers import offer
from updaterd.release.channels.steering import newest
from updaterd.release.deltas import Progress
from updaterd.release.order import (
    Added,
    Order,
    Planned,
    catalog_of,
    check_wish,
    examine,
    existing,
    open_repository,
    place,
)
from updaterd.release.repository.catalog import Catalog
from updaterd.release.workspace import Workspace

__all__ = [
    "Added",
    "Built",
    "Order",
    "Planned",
    "build_planned",
    "catalog_of",
    "check_attested",
    "check_not_back",
    "check_wish",
    "enter",
    "examine",
    "manifest_of",
    "newest",
    "offer",
    "open_repository",
    "prepare",
    "yank",
]


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
    plan = examine(workspace, root, order, now=now)
    if isinstance(plan, Added):
        return plan
    return build_planned(workspace, plan, progress=progress)


def build_planned(
    workspace: Workspace,
    planned: Planned,
    *,
    keep: bool = True,
    progress: Progress | None = None,
) -> Built:
    """Build a release; see `build.build`.

    Raises:
        RejectedError: the directory changed meanwhile, or a given patch does not
            make this release.
        OSError: the disk refused.

    Power cut: blobs are whole or absent; nothing refers to them yet.
    """
    built = build.build(
        workspace,
        planned.root,
        planned.files,
        version=planned.order.version,
        previous=planned.previous,
        patches=planned.patches,
        min_updater=planned.order.min_updater,
        strict=planned.order.strict,
        memory=planned.order.memory,
        rate=exchange.RATES[planned.order.purpose],
        keep=keep,
        progress=progress,
    )
    attached = attestations.of(planned.attached, built.tree)
    if keep:
        attestations.keep(workspace, attached)
    return replace(
        built,
        attributes=planned.attributes,
        attestations=tuple(item.entry for item in attached),
        notes=(*built.notes, *planned.notes),
    )


def enter(catalog: Catalog, order: Order, built: Built) -> Added:
    """Give a built release its place in the order and enter it, unsigned as yet.

    Returns:
        As `prepare` does when somebody else published the same meanwhile.

    Raises:
        RejectedError: somebody else was faster with this version or its place.
    """
    published = existing(catalog, order, built.files, built.attributes)
    if published is not None:
        return published
    manifest = manifest_of(order, built, place(catalog, order), at=catalog.now)
    catalog.add(manifest)
    notes = built.notes
    if manifest.pace is not None:
        notes = (*notes, _note_on_pace(manifest.pace, is_strict=order.pace.strict))
    if order.from_seq_min:
        note = (
            f"it is installed over seq {order.from_seq_min} or later; an updaterd "
            "that does not know what that means passes it over, and keeps what it has"
        )
        notes = (*notes, note)
    if order.notes:
        size = sum(len(text.encode()) for _, text in order.notes)
        languages = ", ".join(language for language, _ in order.notes)
        notes = (*notes, f"release notes ({languages}): {size:,} bytes of the manifest")
    return Added(manifest=manifest, fresh=True, skipped=built.skipped, notes=notes)


def _note_on_pace(pace: Pace, *, is_strict: bool) -> str:
    """Return what the publisher of a release with a pace should know."""
    older = "passes the release over" if is_strict else "does what the channel says"
    return (
        f"pace, signed by the release key: {pace}; an updaterd that is older than this "
        f"{older}"
    )


def manifest_of(order: Order, built: Built, seq: int, *, at: int = 0) -> Manifest:
    """Return the manifest of a built release at its place in the order.

    Args:
        order: what was asked for.
        built: what was built.
        seq: its place.
        at: when it is signed, in Unix seconds; 0: nobody knows yet.
    """
    return Manifest(
        product=order.product,
        version=order.version,
        seq=seq,
        platform=order.platform,
        min_updater=order.min_updater,
        floor_seq=order.floor_seq,
        from_seq_min=order.from_seq_min,
        pace=order.pace.starting(at),
        notes=order.notes,
        files=built.files,
        full=built.full,
        deltas=built.deltas,
        attributes=built.attributes,
        must_understand=(
            *built.attributes.must_understand,
            *(("from_seq_min",) if order.from_seq_min else ()),
            *(("pace",) if order.pace.strict and order.pace.steps else ()),
        ),
        attestations=built.attestations,
    )


def check_attested(orders: Sequence[Order], built: Sequence[Built | Added]) -> None:
    """Make sure that each attestation is about one of the releases, which carries it.

    Raises:
        RejectedError: one is not.
    """
    manifests = [
        release.manifest
        if isinstance(release, Added)
        else manifest_of(order, release, seq=1)
        for order, release in zip(orders, built, strict=True)
    ]
    paths = dict.fromkeys(path for order in orders for path in order.attest)
    attestations.check_all_bound(attestations.read_all(tuple(paths)), manifests)


def check_not_back(pointer: ChannelPointer, manifest: Manifest) -> None:
    """Refuse to offer an old release by pushing it again.

    Raises:
        RejectedError: the channel already offers a later one.
        steering.not_newest: that refusal.
    """
    later = max((standing.seq for standing in pointer.releases), default=0)
    if later > manifest.seq:
        raise steering.not_newest(pointer, manifest.version)


def yank(catalog: Catalog, version: str) -> list[ChannelPointer]:
    """Withdraw a release everywhere; see `withdrawal.yank`.

    Returns:
        The pointers that changed.

    Raises:
        BrokenError: there is no such release.
    """
    return [channel.pointer for channel in withdrawal.yank(catalog, version)]
