# SPDX-License-Identifier: Apache-2.0
"""Telling the world what was signed: machines by the feed, people by webhooks.

Nothing here keeps a rollout from being judged: a halt is worth more than a message.
"""

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import delivery, feed, opening

if TYPE_CHECKING:
    from collections.abc import Iterable

    from updaterd.core.channel import ChannelPointer
    from updaterd.errors import TransientError, UpdaterError
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.rollouts.webhooks import Webhook
    from updaterd.release.workspace import Workspace

Channel = tuple[str, str]
"""A product and a channel of it."""


def tell(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    repository: "Repository",
    pointer: "ChannelPointer",
) -> "UpdaterError | None":
    """Deliver and announce what was signed; return what could not be done of it.

    Power cut: it is known that it has to be announced.
    """
    from updaterd.errors import UpdaterError

    try:
        delivery.deliver(arguments, workspace)
        feed.announce(arguments, workspace, repository, pointer)
        _forget(workspace, (pointer.product, pointer.channel))
    except UpdaterError as error:
        return error
    except OSError as error:
        return refused(
            error, means="it is signed and stands; machines may not have been told"
        )
    return None


def refused(error: OSError, *, means: str) -> "TransientError":
    """Return what `watch` says of a disk that does not do what it has to."""
    from updaterd.errors import TransientError

    return TransientError(
        f"the disk refused: {error}",
        means=means,
        do="make room, or repair the disk: `watch` tries again by itself",
        code="disk",
    )


def tell_late(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    untold: "Iterable[Channel]",
) -> "dict[Channel, UpdaterError]":
    """Tell of what earlier looks signed; return what could not be done of it.

    Raises:
        BrokenError: the repository cannot be read.
    """
    from updaterd.release import publish

    errors = {}
    for product, channel in sorted(untold):
        repository = opening.published(workspace)
        catalog = publish.catalog_of(workspace, repository, product)
        if channel in catalog.channels():
            pointer = catalog.pointer(channel)
            error = tell(arguments, workspace, repository, pointer)
            if error is not None:
                errors[product, channel] = error
    return errors


def _forget(workspace: "Workspace", channel: Channel) -> None:
    from updaterd.release.rollouts import memory

    with workspace.locked():
        known = memory.load(workspace.folder)
        memory.save(workspace.folder, replace(known, untold=known.untold - {channel}))


def remembered(
    workspace: "Workspace", hooks: "tuple[Webhook, ...]"
) -> frozenset[Channel]:
    """Return what is untold; set each webhook to a line that the log has.

    Those that are new get what comes from now on. So do those that got more lines than
    there are: the log was restored from a backup.
    """
    from updaterd.release.rollouts import audit, memory

    with workspace.locked():
        known = memory.load(workspace.folder)
        count = len(audit.read(workspace.folder).lines) if hooks else 0
        sent = {hook.name: min(known.sent.get(hook.name, count), count)
                for hook in hooks}  # fmt: skip
        if any(known.sent.get(name) != number for name, number in sent.items()):
            known = replace(known, sent=sent)
            memory.save(workspace.folder, known)
    return known.untold


def webhooks(workspace: "Workspace") -> "tuple[Webhook, ...]":
    """Return the receivers.

    Raises:
        BrokenError: one cannot be used.
    """
    from updaterd.release.rollouts import plans
    from updaterd.release.rollouts import webhooks as receivers

    table = plans.configured(workspace.folder).get("webhooks", [])
    return receivers.configured(workspace.folder, table)


def send(workspace: "Workspace", hooks: "tuple[Webhook, ...]") -> None:
    """Send the lines that webhooks have not got; say what went wrong, and go on.

    Power cut: some get again what they got already, under the same id.
    """
    try:
        _send(workspace, hooks)
    except OSError as error:
        _note(f"webhooks may get some lines late, or again: the disk refused: {error}")


def _send(workspace: "Workspace", hooks: "tuple[Webhook, ...]") -> None:
    from updaterd.net import Fetcher
    from updaterd.release.rollouts import audit, memory
    from updaterd.release.rollouts import webhooks as receivers

    if not hooks:
        return
    known, log = memory.load(workspace.folder), audit.read(workspace.folder)
    for fault in log.faults:
        _note(
            f"webhooks get nothing of {workspace.folder / audit.FILE} from there on: "
            f"{fault}; `updaterd release audit --verify` says what to do"
        )
    lines = log.lines
    now = int(opening.clock().timestamp())
    for hook in hooks:
        after = known.sent.get(hook.name, len(lines))
        if after >= len(lines):
            continue
        with Fetcher(deadline_s=10.0) as fetcher:
            sent, wrong = receivers.send(fetcher, hook, lines, after=after, now=now)
        if wrong:
            _note(f"webhook {wrong}")
        with workspace.locked():
            latest = memory.load(workspace.folder)
            counts = {
                **latest.sent,
                hook.name: max(sent, latest.sent.get(hook.name, 0)),
            }
            memory.save(workspace.folder, replace(latest, sent=counts))


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
