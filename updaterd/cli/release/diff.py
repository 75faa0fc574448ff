# SPDX-License-Identifier: Apache-2.0
"""`updaterd release diff`: what changes for a machine, and who signed it."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import opening, options, output

if TYPE_CHECKING:
    from updaterd.core.manifest import Manifest
    from updaterd.release.repository.catalog import Catalog
    from updaterd.release.repository.metadata import Repository

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    diff = options.command(
        commands,
        "diff",
        run,
        "show what differs between two releases, what a machine fetches, who signed",
    )
    diff.add_argument("old", metavar="A", help="version of the one")
    diff.add_argument("new", metavar="B", help="version of the other")
    diff.add_argument("--product", required=True, metavar="NAME", help="the product")
    diff.add_argument(
        "--platform", metavar="NAME", help="of both (default: all that both are for)"
    )
    options.add_workspace(diff)


def run(arguments: argparse.Namespace) -> int:
    """Show it.

    Raises:
        BrokenError: there is no such release, or none for that platform.
    """
    from updaterd.errors import BrokenError
    from updaterd.release import publish

    workspace = opening.workspace(arguments)
    repository = opening.published(workspace)
    catalog = publish.catalog_of(workspace, repository, arguments.product)
    catalog.require(arguments.old)
    catalog.require(arguments.new)
    _, made_for = catalog.releases()
    common = set(made_for[arguments.old]) & set(made_for[arguments.new])
    if arguments.platform is not None:
        common &= {arguments.platform}
    if not common:
        raise BrokenError(
            f"{arguments.old} and {arguments.new} are for no common platform"
            + (f" {arguments.platform}" if arguments.platform else ""),
            do="`updaterd release status` lists the platforms of each",
            code="no_such_release",
        )
    output.answer(
        arguments,
        product=arguments.product,
        platforms={
            platform: _compare(
                repository, catalog, arguments.old, arguments.new, platform
            )
            for platform in sorted(common)
        },
    )
    return 0


def _compare(
    repository: "Repository", catalog: "Catalog", old: str, new: str, platform: str
) -> dict[str, object]:
    """Print what differs on a platform; return it for programs."""
    from dataclasses import asdict

    from updaterd.core.text import printable
    from updaterd.release import difference, preview

    manifests: list[Manifest] = []
    ends: list[dict[str, object]] = []
    for version in (old, new):
        entry = catalog.find(version, platform)
        assert entry is not None
        manifests.append(catalog.manifest(entry))
        signed = difference.signed(repository, catalog, entry)
        print(
            f"{catalog.product} {version} (seq {entry.seq}) for {platform}: "
            f"{output.signed(signed)}"
        )
        ends.append({
            "version": version,
            "seq": entry.seq,
            "signed_by": list(signed.keys),
            "signed_at": signed.at and f"{signed.at:%Y-%m-%dT%H:%M:%SZ}",
        })
    before, after = manifests
    changes = difference.changes(before, after)
    for change in changes:
        print(f"  {_SIGNS[change.kind]} {printable(change.path)}: {change.detail}")
    counts = {kind: sum(change.kind == kind for change in changes) for kind in _SIGNS}
    print("  " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    pointers = map(catalog.pointer, catalog.channels())
    stones = preview.stones_of(catalog, pointers, platform)
    fetches = list(preview.fetches(after, [before], stones))
    for fetch in fetches:
        installed = f"on {fetch.installed}" if fetch.installed else "with nothing"
        print(f"  a machine {installed} fetches {fetch.bytes:,} bytes ({fetch.route})")
    return {
        "releases": ends,
        "changes": [asdict(change) for change in changes],
        **counts,
        "unpacked": [manifest.full.unpacked for manifest in manifests],
        "fetches": [asdict(fetch) for fetch in fetches],
    }
