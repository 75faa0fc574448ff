# SPDX-License-Identifier: Apache-2.0
"""What a release is, for the person who signs it."""

from datetime import UTC, datetime
from typing import Any

from updaterd.core import release_notes
from updaterd.core.attributes import FOLDER_MODE
from updaterd.core.manifest import File, Manifest
from updaterd.core.pace import Pace

_NAMED = 10
"""So many changed files are named; programs get all of them."""


def of(manifest: Manifest, base: Manifest | None, *, is_first: bool) -> dict[str, Any]:
    """Return the facts of a release, and what it changes.

    Args:
        manifest: of the release.
        base: the newest release before it; None: none, or it is not at hand.
        is_first: there is none.
    """
    old = {entry.path: entry for entry in base.files} if base else {}
    new = {entry.path: entry for entry in manifest.files}
    return {
        "tree": manifest.tree,
        "seq": manifest.seq,
        "files": len(manifest.files),
        "bytes": sum(e.length for e in manifest.files if isinstance(e, File)),
        "full": {"sha256": manifest.full.sha256, "length": manifest.full.length},
        "deltas": {
            edge.from_version: edge.length
            for edge in manifest.deltas
            if edge.to_tree == manifest.tree
        },
        "min_updater": manifest.min_updater,
        "floor_seq": manifest.floor_seq,
        "from_seq_min": manifest.from_seq_min,
        "pace": manifest.pace.as_member() if manifest.pace else None,
        "special": {
            item.path: f"{item.mode:o}" for item in manifest.attributes.special
        },
        "folders": {
            item.path: f"{item.mode:o}"
            for item in manifest.attributes.folders
            if item.mode != FOLDER_MODE
        },
        "outside": {link.path: link.target for link in manifest.attributes.outside},
        "attestations": [
            {"kind": entry.kind, "sha256": entry.sha256}
            for entry in manifest.attestations
        ],
        "notes": dict(manifest.notes),
        "is_first": is_first,
        "compared_with": base.version if base else None,
        "new": sorted(new.keys() - old.keys()) if base else [],
        "gone": sorted(old.keys() - new.keys()),
        "changed": sorted(
            path for path in new.keys() & old.keys() if new[path] != old[path]
        ),
    }


def lines(manifest: Manifest, facts: dict[str, Any]) -> list[str]:
    """Return the same in plain words."""
    text = [
        f"{manifest.product} {manifest.version} (seq {manifest.seq}) for "
        + manifest.platform,
        f"  {facts['files']} files, {facts['bytes']:,} bytes, tree {facts['tree']}",
        f"  full bundle: {manifest.full.length:,} bytes, sha256 {manifest.full.sha256}",
    ]
    text += [
        f"  delta from {version}: {length:,} bytes"
        for version, length in facts["deltas"].items()
    ]
    if facts["is_first"]:
        text.append("  nothing was published before it for this platform")
    elif facts["compared_with"] is None:
        text.append("  the release before it is not at hand: not compared with it")
    else:
        counts = [f"{len(facts[kind])} {kind}" for kind in ("new", "changed", "gone")]
        text.append(f"  beside {facts['compared_with']}: {', '.join(counts)}")
        for kind in ("new", "changed", "gone"):
            text += [f"    {kind}: {path!a}" for path in facts[kind][:_NAMED]]
            if len(facts[kind]) > _NAMED:
                text.append(f"    {kind}: {len(facts[kind]) - _NAMED} more")
    text += [f"  RIGHTS: {path!a} is {mode}" for path, mode in facts["special"].items()]
    text += [f"  folder {path!a} is {mode}" for path, mode in facts["folders"].items()]
    text += [
        f"  LEADS OUT: {path!a} to {target!a}"
        for path, target in facts["outside"].items()
    ]
    if manifest.floor_seq:
        text.append(
            f"  FLOOR: machines that install it never go below seq {manifest.floor_seq}"
        )
    if manifest.from_seq_min:
        text.append(f"  STEPS: not over what is below seq {manifest.from_seq_min}")
    if manifest.pace is not None:
        text.append(f"  PACE: {manifest.pace}, from {_moment(manifest.pace)} on")
    text.append(f"  for updaterd {manifest.min_updater} and later")
    text += [
        f"  attestation {entry['kind']}, sha256 {entry['sha256']}"
        for entry in facts["attestations"]
    ]
    for language, note in manifest.notes:
        text += _note_lines(language, note)
    return text


def _moment(pace: Pace) -> str:
    """Return when a pace starts, for a person."""
    return f"{datetime.fromtimestamp(pace.published_at, UTC):%Y-%m-%d %H:%M} UTC"


def _note_lines(language: str, note: str) -> list[str]:
    """Return release notes as machines show them, marked so that no line is ours."""
    hidden = release_notes.hidden(note)
    besides = f", with characters that nobody sees ({hidden[1]})" if hidden else ""
    shown = release_notes.plain(note).split("\n")
    return [f"  notes ({language}){besides}:", *(f"    | {line}" for line in shown)]
