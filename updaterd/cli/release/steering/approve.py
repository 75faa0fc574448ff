# SPDX-License-Identifier: Apache-2.0
"""`updaterd release approve`: sign a channel's change that somebody else proposed."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import (
    acts,
    confirming,
    delivery,
    feed,
    opening,
    options,
    output,
)
from updaterd.cli.release.parts import steering as steer

if TYPE_CHECKING:
    from updaterd.release.channels.approval import Proposal

MORE = """\
Where a channel's role needs two signatures, `publish`, `promote`, `rollout`, `pause`
and `resume` only propose a change: --propose FILE, signed by the key that is there. On
the machine with another key of the channel, beside a copy of public/:
  updaterd release approve FILE
says what would change, and signs. Where enough have signed and the keys of snapshot and
timestamp are, the same command publishes it.
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    approve = options.command(
        commands, "approve", run, "sign a channel's change, or publish it", MORE
    )
    approve.add_argument("file", type=Path, metavar="FILE", help="the proposal")
    approve.add_argument("--yes", action="store_true", help="do not ask")
    steer.add_options(approve)


def run(arguments: argparse.Namespace) -> int:
    """Sign it; publish it when enough have."""
    from updaterd import durable
    from updaterd.release import publish
    from updaterd.release.channels import approval

    workspace = opening.workspace(arguments)
    with workspace.locked():
        repository = opening.current(arguments, workspace)
        raw = _read(arguments.file)
        proposal = approval.read(raw, repository, where=str(arguments.file))
        catalog = publish.catalog_of(workspace, repository, proposal.pointer.product)
        approval.check_there(proposal, catalog, where=str(arguments.file))
        print("now:")
        output.show_channel(catalog.pointer(proposal.pointer.channel))
        print("proposed:")
        output.show_channel(proposal.pointer)
        _show_signers(proposal, [repository.key_name(k) for k in _keys(proposal)])
        names: list[str] = []
        if proposal.missing:
            if not (arguments.yes or confirming.is_confirmed()):
                return 1
            names = approval.approve(proposal, repository, workspace.keyring)
        keys = [*repository.authority("snapshot")[0]]
        is_home = any(workspace.keyring.is_here(key) for key in keys)
        publishes = is_home and not proposal.missing
        if publishes:  # or nothing is written
            feed.check(arguments, workspace)
            repository.require_keys("snapshot", "timestamp")
        acts.approve(workspace, repository, proposal, names, publishes=publishes)
        if names:
            durable.write_file(arguments.file, proposal.encode(), mode=0o644)
            print(f"signed by {', '.join(names)}")
        if not proposal.missing and not is_home:
            print(
                f"enough have signed. To publish it, where the repository is: "
                f"`updaterd release approve {arguments.file.name}`"
            )
            output.answer(arguments, missing=0, published=False)
            return 0
        approval.publish(proposal, repository, catalog)
    print(f"published in channel {proposal.pointer.channel}")
    output.answer(arguments, missing=0, published=True)
    delivery.deliver(arguments, workspace)
    feed.announce(arguments, workspace, repository, proposal.pointer)
    return 0


def _read(path: Path) -> bytes:
    """Return the file.

    Raises:
        BrokenError: there is none.
    """
    from updaterd.errors import BrokenError

    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenError(
            f"{path} cannot be read: {error.strerror}",
            means="nothing was signed or published",
            do="give the file that --propose wrote",
            code="proposal_refused",
        ) from error


def _keys(proposal: "Proposal") -> list[str]:
    return list(proposal.metadata.signatures)


def _show_signers(proposal: "Proposal", names: list[str]) -> None:
    print(
        f"signed by {', '.join(names)}: {len(names)} of {proposal.threshold}; expires "
        f"{proposal.metadata.signed.expires:%Y-%m-%d}"
    )
