# SPDX-License-Identifier: Apache-2.0
"""`updaterd release show`: one release, as it is published."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import opening, options, output

if TYPE_CHECKING:
    from updaterd.core.manifest import Manifest
    from updaterd.release.difference import Signed


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    show = options.command(
        commands, "show", run, "show a release: who signed it, its bundles, its notes"
    )
    options.add_release(show, channel=False)
    options.add_workspace(show)


def run(arguments: argparse.Namespace) -> int:
    """Show it, on each platform."""
    from updaterd.release import difference, publish

    workspace = opening.workspace(arguments)
    repository = opening.published(workspace)
    catalog = publish.catalog_of(workspace, repository, arguments.product)
    catalog.require(arguments.version)
    platforms = {}
    for entry in catalog.listed():
        if entry.version != arguments.version:
            continue
        manifest = catalog.manifest(entry)
        signed = difference.signed(repository, catalog, entry)
        _print(manifest, signed)
        platforms[entry.platform] = {
            "seq": manifest.seq,
            "tree": manifest.tree,
            "signed_by": list(signed.keys),
            "signed_at": signed.at and f"{signed.at:%Y-%m-%dT%H:%M:%SZ}",
            "min_updater": manifest.min_updater,
            "floor_seq": manifest.floor_seq,
            "from_seq_min": manifest.from_seq_min,
            "files": len(manifest.files),
            "unpacked": manifest.full.unpacked,
            "full": manifest.full.length,
            "deltas": {
                edge.from_version: edge.length
                for edge in manifest.deltas
                if edge.to_version == manifest.version
            },
            "notes": dict(manifest.notes),
        }
    output.answer(
        arguments,
        product=arguments.product,
        version=arguments.version,
        platforms=platforms,
    )
    return 0


def _print(manifest: "Manifest", signed: "Signed") -> None:
    print(
        f"{manifest.product} {manifest.version} (seq {manifest.seq}) for "
        f"{manifest.platform}"
    )
    print(f"  signed    {output.signed(signed)}")
    print(f"  tree      {manifest.tree}")
    print(
        f"  files     {len(manifest.files):,}, {manifest.full.unpacked:,} bytes; "
        f"{manifest.full.length:,} bytes full"
    )
    for edge in manifest.deltas:
        if edge.to_version == manifest.version:
            print(f"  delta     from {edge.from_version}: {edge.length:,} bytes")
    needs = [f"updaterd {manifest.min_updater} or later"]
    if manifest.from_seq_min:
        needs.append(f"a release from seq {manifest.from_seq_min} on, where any is")
    print(f"  needs     {', '.join(needs)}")
    if manifest.floor_seq:
        print(f"  floor     seq {manifest.floor_seq}")
    output.show_release_notes(manifest.notes)
