# SPDX-License-Identifier: Apache-2.0
"""`updaterd release show`: one release, as it is published."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import opening, options, output

if TYPE_CHECKING:
    from updaterd.core.attestation import Attestation
    from updaterd.core.manifest import Manifest
    from updaterd.release.difference import Signed
    from updaterd.release.workspace import Workspace


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    show = options.command(
        commands,
        "show",
        run,
        "show a release: who signed it, its bundles, its notes",
        "Ends with 1 where an attestation is not what the manifest says, or, with "
        "--key, where\nanother key signed it.\n",
    )
    options.add_release(show, channel=False)
    show.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="builder's public key (PEM) that its attestations are checked with",
    )
    options.add_workspace(show)


def run(arguments: argparse.Namespace) -> int:
    """Show it, on each platform."""
    from updaterd.cli import EXIT_ERROR
    from updaterd.release import difference, publish

    workspace = opening.workspace(arguments)
    repository = opening.published(workspace)
    catalog = publish.catalog_of(workspace, repository, arguments.product)
    catalog.require(arguments.version)
    platforms = {}
    is_well = True
    for entry in catalog.listed():
        if entry.version != arguments.version:
            continue
        manifest = catalog.manifest(entry)
        signed = difference.signed(repository, catalog, entry)
        faults = {
            item.sha256: _fault(workspace, manifest, item, arguments.key)
            for item in manifest.attestations
        }
        is_well = is_well and not any(faults.values())
        _print(manifest, signed, faults)
        platforms[entry.platform] = {
            "seq": manifest.seq,
            "tree": manifest.tree,
            "signed_by": list(signed.keys),
            "signed_at": signed.at and f"{signed.at:%Y-%m-%dT%H:%M:%SZ}",
            "min_updater": manifest.min_updater,
            "floor_seq": manifest.floor_seq,
            "from_seq_min": manifest.from_seq_min,
            "pace": manifest.pace.as_member() if manifest.pace else None,
            "files": len(manifest.files),
            "unpacked": manifest.full.unpacked,
            "full": manifest.full.length,
            "deltas": {
                edge.from_version: edge.length
                for edge in manifest.deltas
                if edge.to_version == manifest.version
            },
            "notes": dict(manifest.notes),
            "attestations": [
                {"kind": item.kind, "sha256": item.sha256, "fault": faults[item.sha256]}
                for item in manifest.attestations
            ],
        }
    output.answer(
        arguments,
        product=arguments.product,
        version=arguments.version,
        platforms=platforms,
    )
    return 0 if is_well else EXIT_ERROR


def _fault(
    workspace: "Workspace", manifest: "Manifest", entry: "Attestation", key: Path | None
) -> str:
    """Return what is wrong with an attestation; empty for nothing.

    Raises:
        BrokenError: the key cannot be used.
    """
    from updaterd.errors import BrokenError
    from updaterd.release import attestations
    from updaterd.trust import attested

    try:
        raw = workspace.blob(entry.sha256).read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    for fault in attestations.faults(manifest, entry, raw, where=manifest.platform):
        return fault
    if key is None:
        return ""
    try:
        public = attested.read_key(key)
    except BrokenError as error:
        error.means = "whether this key signed the attestations is not known"
        error.do = "--key FILE, with the builder's public key (PEM, Ed25519 or ECDSA)"
        raise
    return attested.fault(raw, entry, tree=manifest.tree, key=public)


def _print(manifest: "Manifest", signed: "Signed", faults: dict[str, str]) -> None:
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
    if manifest.pace is not None:
        print(f"  pace      {output.pace(manifest.pace)}")
    if manifest.floor_seq:
        print(f"  floor     seq {manifest.floor_seq}")
    for item in manifest.attestations:
        state = faults[item.sha256] or "well"
        print(f"  attested  {item.kind}, sha256 {item.sha256}: {state}")
    output.show_release_notes(manifest.notes)
