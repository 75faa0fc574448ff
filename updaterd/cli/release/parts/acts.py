# SPDX-License-Identifier: Apache-2.0
"""Entering what a command is about to sign into the audit log."""

import argparse
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from updaterd.release.channels.approval import Proposal
    from updaterd.release.channels.steering import Steered
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


def actor() -> str:
    """Return who acts: as $UPDATERD_WHO says, or by the name of the account."""
    from pwd import getpwuid

    from updaterd.core.text import printable

    named = os.environ.get("UPDATERD_WHO", "").strip()
    if named:
        return printable(named, longest=100)
    try:
        account = getpwuid(os.getuid()).pw_name
    except KeyError:
        account = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return printable(f"{behind} as {account}" if behind else account, longest=100)


def enter(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    repository: "Repository",
    changes: "Iterable[Steered]",
    version: str = "",
) -> None:
    """Write a line for each channel that changes; its role is signed with it.

    Args:
        arguments: the command, and its reason if it takes one.
        workspace: locked.
        repository: right before it is committed.
        changes: what the command does to channels.
        version: the release it is about; "": what each channel offers first.

    Raises:
        MissingKeysError: what is not only proposed cannot be signed here; nothing is
            written.

    Power cut: see `audit.record`.
    """
    from updaterd.core import layout
    from updaterd.release.rollouts import audit

    acts = []
    for steered in changes:
        if steered.changed:
            if getattr(arguments, "propose", None) is None:
                on = steered.pointer
                repository.require_keys(
                    layout.channel_role(on.product, on.channel), "snapshot", "timestamp"
                )
            first = next(iter(steered.pointer.releases), None)
            acts.append(
                audit.Act(
                    act=arguments.release_command,
                    pointer=steered.pointer,
                    version=version or (first.version if first else ""),
                    why=getattr(arguments, "reason", None) or "",
                )
            )
    audit.record(workspace.folder, repository, acts, actor=actor(), now=repository.now)


def approve(
    workspace: "Workspace",
    repository: "Repository",
    proposal: "Proposal",
    names: Sequence[str],
    *,
    publishes: bool,
) -> None:
    """Write a line for what `approve` is about to sign; none where that is nothing.

    Args:
        workspace: locked.
        repository: as published.
        proposal: what is approved.
        names: of the keys that sign it now.
        publishes: it is signed into the repository, too.

    Power cut: see `audit.record`.
    """
    from updaterd.release.rollouts import audit

    done = [f"signed by {', '.join(names)}"] if names else []
    done += ["published"] if publishes else []
    if not done:
        return
    first = next(iter(proposal.pointer.releases), None)
    act = audit.Act(
        act=audit.APPROVE,
        pointer=proposal.pointer,
        version=first.version if first else "",
        why=f"{', '.join(done)}; needs {proposal.threshold} signatures",
        is_in_role=False,
    )
    audit.record(workspace.folder, repository, [act], actor=actor(), now=repository.now)
