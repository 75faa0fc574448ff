# SPDX-License-Identifier: Apache-2.0
"""`updaterd release publish`: point a channel to a release."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    acts,
    building,
    delivery,
    feed,
    opening,
    options,
    output,
)
from updaterd.cli.release.parts import steering as steer

if TYPE_CHECKING:
    from updaterd.release.channels.steering import Steered
    from updaterd.release.repository.catalog import Catalog

MORE = """\
An older release is allowed: machines step back to it, all of them, not below the
floor. What is on offer already stays as it is.

FILE is a release that was built and signed elsewhere (`release build`, `release
sign`). It is taken into the repository, which needs the online key only, and then
offered as `push` does: never back. Without --channel it is only taken in.
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    publish = options.command(
        commands, "publish", run, "point a channel to a release", MORE
    )
    publish.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="signed release file"
    )
    publish.add_argument("--product", metavar="NAME", help="the product")
    publish.add_argument(
        "--version", metavar="LABEL", help="the release's version, a label"
    )
    publish.add_argument("--channel", metavar="NAME", help="the channel")
    options.add_without(publish)
    options.add_rollout(publish)
    steer.add_proposal(publish)
    steer.add_options(publish)


def run(arguments: argparse.Namespace) -> int:
    """Point a channel to a release."""
    wrong = ""
    if arguments.file is not None:
        if arguments.product or arguments.version:
            wrong = "the file says which product and version it is"
        elif arguments.propose is not None and arguments.channel is not None:
            wrong = "take FILE in without --channel, then propose what it brought"
    elif not (arguments.product and arguments.version and arguments.channel):
        wrong = "name --product, --version and --channel, or a signed release FILE"
    if wrong:
        return output.usage(arguments, wrong)
    if arguments.file is not None:
        return _take(arguments)

    def change(catalog: "Catalog") -> "Steered":
        from updaterd.release.channels import steering

        wish = steer.wish(arguments, arguments.version, back=True)
        return steering.put(catalog, arguments.channel, wish)

    return steer.steer(arguments, change)


def _take(arguments: argparse.Namespace) -> int:
    """Take a signed release into the repository, and offer it."""
    from updaterd.core import layout
    from updaterd.release import publish
    from updaterd.release.channels import manifests, steering, stones
    from updaterd.release.handover import taking
    from updaterd.release.handover.file import ReleaseFile

    workspace = opening.workspace(arguments)
    feed.check(arguments, workspace)
    steered = None
    with (
        ReleaseFile.open(arguments.file) as release,
        workspace.scratch() as work,
        workspace.locked(),
    ):
        repository = opening.current(arguments, workspace)
        trial = publish.open_repository(workspace, repository.now)
        signed = taking.examine(release, workspace, repository, trial)
        catalog = publish.catalog_of(workspace, repository, release.product)
        if arguments.channel is not None:
            catalog.pointer(arguments.channel)  # there is such a one
        roles = [
            layout.channel_role(release.product, name)
            for name in (
                *([arguments.channel] if arguments.channel else []),
                *catalog.remembering(release.version),
            )
        ]
        if signed.roles or roles:
            repository.require_keys(*dict.fromkeys(roles), "snapshot", "timestamp")
        if arguments.channel is not None:
            for manifest in signed.manifests:
                stones.check(
                    catalog,
                    arguments.channel,
                    manifest.version,
                    seq=manifest.seq,
                    from_seq_min=manifest.from_seq_min,
                    platform=manifest.platform,
                )
        taking.keep(release, workspace, catalog, signed, work=work)
        if arguments.channel is not None:
            wish = steer.wish(
                arguments, release.version, back=False, product=release.product
            )
            steered = steering.put(catalog, arguments.channel, wish)
            if steered.changed:
                catalog.point(manifests.carried(workspace, catalog, steered.pointer))
            acts.enter(arguments, workspace, repository, [steered], release.version)
        repository.commit()
        offering = [
            name
            for name in catalog.channels()
            for offer in catalog.pointer(name).releases
            if offer.version == release.version
        ]
    building.show(arguments, signed.added)
    if steered is None:
        if offering:
            print(f"offered in channel {', '.join(offering)} already")
        else:
            print("no channel offers what is new yet: `updaterd release publish`")
        delivery.deliver(arguments, workspace)
        return 0
    print(f"published in channel {arguments.channel}")
    output.show_notes(arguments, steered)
    delivery.deliver(arguments, workspace)
    feed.announce(arguments, workspace, repository, steered.pointer)
    return 0
