# SPDX-License-Identifier: Apache-2.0
"""`updaterd release build`: directories become a release file, without any key."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    building,
    files,
    handover,
    opening,
    options,
    output,
    trees,
)

if TYPE_CHECKING:
    from updaterd.release.workspace import Settings

MORE = """\
Needs no key. The file goes to where the release key is, and from there to the
repository:
  updaterd release build build/ -o acme.release --product acme --version 1.2.0 \\
      --from https://updates.example.com/repo --root 1.root.json
  updaterd release sign acme.release                          # with the release key
  updaterd release publish acme.release --channel stable      # with the online key

The same tree, arguments and published releases give the same bytes (set
SOURCE_DATE_EPOCH, or keep the files' times).
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    build = options.command(
        commands, "build", run, "build and prove a release into a file, unsigned", MORE
    )
    trees.add_trees(build)
    build.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="release file to write",
    )
    options.add_release(build, channel=False)
    trees.add_build(build, placed=False)
    handover.add_from(
        build, "that deltas are made against (default: that of the workspace)"
    )
    build.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="the repository's 1.root.json, which vouches for what an address serves",
    )
    handover.add_repo(build)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from updaterd.cli import EXIT_USAGE
    from updaterd.release.handover import file, making, state
    from updaterd.release.keys.keyring import Keyring
    from updaterd.release.order import Added

    arguments.output = files.writable(arguments.output)
    public = arguments.repo / "public"
    arguments.seq = None  # who signs gives it its place
    with making.scratch(arguments.output, _settings(arguments)) as space:
        roots = trees.trees(arguments, space)
        if not roots:
            return EXIT_USAGE
        orders = trees.orders(arguments, space, roots)
        now = opening.clock()
        trusted = handover.trusted(arguments, public)
        with handover.source(arguments, public) as (source, fetch):
            published = state.look(source, trusted, arguments.product, now=now)
            repository = published.repository(space.work, Keyring(space.folder), now)
            listing = state.Listing(
                repository, arguments.product, state.manifests_at(source)
            )
            plans = making.examine(listing, orders, [root for _, root in roots])
            platforms = ", ".join(plan.order.platform for plan in plans)
            title = f"{arguments.product} {arguments.version} ({platforms})"
            with output.Bar(title) as bar:
                built = [
                    making.build(space, plan, fetch=fetch, progress=bar)
                    for plan in plans
                ]
            drafts = making.draft(listing, plans, built)
        parts = making.contents(space, published, listing, drafts)
        file.write(arguments.output, arguments.product, arguments.version, parts)
    releases = [
        Added(
            manifest=draft.manifest,
            fresh=True,
            skipped=draft.skipped,
            notes=draft.notes,
        )
        for draft in drafts
    ]
    building.show(arguments, releases, done="built")
    size = arguments.output.stat().st_size
    print(
        f"wrote {arguments.output}: {size:,} bytes, not signed; next, with the release "
        f"key: `updaterd release sign {arguments.output.name}`"
    )
    output.answer(arguments, file=str(arguments.output), bytes=size, signed=False)
    return 0


def _settings(arguments: argparse.Namespace) -> "Settings":
    """Return platform and deltas: the workspace's, where there is one."""
    from dataclasses import replace

    from updaterd.release import workspace

    plain = workspace.Settings(profile="prod", platform=workspace.this_platform())
    if not (arguments.repo / "release.toml").exists():
        return plain
    settings = workspace.Workspace(arguments.repo).settings
    return replace(plain, platform=settings.platform, deltas=settings.deltas)
