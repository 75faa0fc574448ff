# SPDX-License-Identifier: Apache-2.0
"""Building releases, and saying what was built."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    opening,
    output,
)
from updaterd.core.bundle_kinds import ARCHIVES, ARM

if TYPE_CHECKING:
    from updaterd.release.build import Built
    from updaterd.release.publish import Added, Order
    from updaterd.release.workspace import Workspace


def build(
    workspace: "Workspace",
    trees: Sequence[tuple[str, Path]],
    orders: "Sequence[Order]",
    *,
    keep: bool = True,
) -> "list[Built | Added]":
    """Build what is to be built, after all of it was looked at."""
    from updaterd.release import publish

    now = opening.clock()
    plans = [
        publish.examine(workspace, root, order, now=now)
        for order, (_, root) in zip(orders, trees, strict=True)
    ]
    names = ", ".join(order.platform for order in orders)
    with output.Bar(f"{orders[0].product} {orders[0].version} ({names})") as bar:
        built = [
            plan
            if isinstance(plan, publish.Added)
            else publish.build_planned(workspace, plan, keep=keep, progress=bar)
            for plan in plans
        ]
    publish.check_attested(orders, built)
    return built


def _show(added: "Added", done: str) -> None:
    manifest = added.manifest
    word = done if added.fresh else "already released:"
    count = len(manifest.files)
    print(
        f"{word} {manifest.product} {manifest.version} (seq {manifest.seq}, "
        f"{manifest.platform}): {count} {'file' if count == 1 else 'files'}, "
        f"{manifest.full.length:,} bytes full"
    )
    for edge in manifest.deltas:
        if edge.to_version == manifest.version:
            percent = 100 * edge.length / manifest.full.length
            which = ""
            if edge.codec.startswith(ARCHIVES):
                which = ", looking into archives"
            elif edge.codec.startswith(ARM):
                which = ", AArch64 programs re-aimed"
            print(
                f"  delta from {edge.from_version}{which}: {edge.length:,} "
                f"({percent:.1f} %)"
            )
    for entry in manifest.attestations:
        print(f"  attestation {entry.kind}: {entry.length:,} bytes")
    for line in added.skipped:
        print(f"  no delta from {line}")
    for line in added.notes:
        print(f"  {line}")


def show(
    arguments: argparse.Namespace,
    releases: "Sequence[Added]",
    *,
    done: str = "released",
) -> None:
    """Show what there is now, to people and to programs."""
    for release in releases:
        _show(release, done)
    first = releases[0].manifest
    output.answer(
        arguments,
        product=first.product,
        version=first.version,
        seq=first.seq,
        platforms={
            release.manifest.platform: {
                "fresh": release.fresh,
                "files": len(release.manifest.files),
                "full": release.manifest.full.length,
                "deltas": {
                    edge.from_version: edge.length
                    for edge in release.manifest.deltas
                    if edge.to_version == first.version
                },
                "attestations": [
                    {"kind": entry.kind, "sha256": entry.sha256}
                    for entry in release.manifest.attestations
                ],
                "skipped": release.skipped,
                "notes": release.notes,
            }
            for release in releases
        },
    )
