# SPDX-License-Identifier: Apache-2.0
"""One look at all rollouts that have a plan: judge, act, tell."""

import argparse
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from updaterd.cli.release.parts import acts, delivery, feed, opening, output
from updaterd.cli.release.parts.rollouts.watched import Watched
from updaterd.core import layout
from updaterd.core.plan import RUNNING
from updaterd.core.watching import Action, Evidence, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from updaterd.core.channel import ChannelPointer
    from updaterd.net import Fetcher
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace

CREDENTIAL = "updaterd.fleet-token"


class Reader:
    """Asks the server of reports; where there is none, says so when it is asked."""

    def __init__(self, url: str, fetcher: "Callable[[], Fetcher]") -> None:
        self._url = url
        self._make = fetcher
        self._fetcher: Fetcher | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        if self._fetcher is not None:
            self._fetcher.close()

    def evidence(self, pointer: "ChannelPointer", *, now: float) -> Evidence:
        """Return what machines reported about a channel's newest release.

        Raises:
            TransientError: the server cannot be reached.
            BrokenError: it does not know the token, takes no reports, or talks
                nonsense.
        """
        from updaterd.release.rollouts import evidence

        self._fetcher = self._fetcher or self._make()
        return evidence.read(self._fetcher, self._url, pointer, now=now)


def reader(arguments: argparse.Namespace, workspace: "Workspace") -> Reader:
    """Return who asks for reports.

    Raises:
        BrokenError: no address is configured, it is not safe, or there is no token.
    """
    from updaterd.errors import BrokenError
    from updaterd.net import Fetcher, require_secure
    from updaterd.release import announce, fleet
    from updaterd.release.keys.credentials import credential

    address = (
        getattr(arguments, "reports", None) or arguments.feed or workspace.settings.feed
    )
    if address is None:
        raise BrokenError(
            "no server of reports is configured",
            means="there is no evidence, so nothing moves",
            do="give the feed's address with --feed, or --reports; or write it into "
            "release.toml",
            code="no_feed",
        )
    url = fleet.address(address)
    require_secure(url)
    file = getattr(arguments, "reports_token_file", None)
    token = os.environ.get("UPDATERD_FLEET_TOKEN", "").strip()
    if file is not None:
        token = announce.read_token(file, {})
    elif not token:
        token = (credential(os.environ, CREDENTIAL) or b"").decode("ascii", "replace")
    if not token:
        file = arguments.token_file
        if file is None and workspace.settings.token_file:
            file = workspace.folder / workspace.settings.token_file
        token = announce.read_token(file, os.environ)
    headers = {"Authorization": f"Bearer {token}"}
    return Reader(
        url, lambda: Fetcher(headers=headers, ca_file=arguments.ca_file, origin=url)
    )


def look(
    arguments: argparse.Namespace, workspace: "Workspace", reports: Reader
) -> tuple[Watched, ...]:
    """Judge every rollout that has a plan, act, and tell who is to be told.

    What was signed before and could not be announced is announced first. Webhooks are
    told whatever else goes wrong.

    Raises:
        UpdaterError: what could not be done; nothing moves without evidence.

    Power cut: what was signed stands; the next look tells of it.
    """
    before = _remembered(workspace)
    try:
        _tell(arguments, workspace, before)
        return tuple([
            _guarded(arguments, workspace, reports, pointer)
            for pointer in _pointers(arguments, workspace)
        ])
    finally:
        _send(workspace)


def foretold(
    arguments: argparse.Namespace, workspace: "Workspace", fetcher: "Fetcher", url: str
) -> tuple[Watched, ...]:
    """Judge every rollout that has a plan, and do nothing.

    Raises:
        TransientError: the server of reports cannot be reached.
        BrokenError: it does not know the token, takes no reports, or talks nonsense.
    """
    from updaterd.release.rollouts import evidence

    now = opening.clock().timestamp()
    rows = []
    for pointer in _pointers(arguments, workspace):
        assert pointer.plan is not None
        reported = evidence.read(fetcher, url, pointer, now=now)
        paused = pointer.paused and not pointer.halted
        verdict = judge(pointer.plan, reported, now=now, paused=paused)
        rows.append(Watched(pointer=pointer, evidence=reported, verdict=verdict))
    return tuple(rows)


def _pointers(
    arguments: argparse.Namespace, workspace: "Workspace"
) -> "list[ChannelPointer]":
    """Return the channels whose newest release has a plan."""
    from updaterd.release import publish
    from updaterd.release.repository.catalog import products
    from updaterd.release.rollouts import acting

    repository = opening.published(workspace)
    guarded = []
    for name in products(repository):
        catalog = publish.catalog_of(workspace, repository, name)
        for channel in catalog.channels():
            pointer = catalog.pointer(channel)
            if (
                acting.plan_of(pointer) is not None
                and arguments.product in {None, name}
                and getattr(arguments, "channel", None) in {None, channel}
            ):
                guarded.append(pointer)
    return guarded


def _guarded(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    reports: Reader,
    pointer: "ChannelPointer",
) -> Watched:
    """Judge one rollout, and act; what goes wrong with it keeps no other waiting."""
    from updaterd.errors import UpdaterError

    try:
        return _judged(arguments, workspace, reports, pointer)
    except UpdaterError as error:
        verdict = Verdict(
            action=Action.HOLD, code=error.code, reason=f"nothing moves: {error.cause}"
        )
        return Watched(pointer=pointer, evidence=None, verdict=verdict, error=error)


def _judged(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    reports: Reader,
    pointer: "ChannelPointer",
) -> Watched:
    """Judge one rollout, and act."""
    plan, now = pointer.plan, opening.clock().timestamp()
    assert plan is not None
    paused = pointer.paused and not pointer.halted
    evidence = None
    if plan.state == RUNNING:
        evidence = reports.evidence(pointer, now=now)
    verdict = judge(plan, evidence or Evidence(), now=now, paused=paused)
    row = Watched(pointer=pointer, evidence=evidence, verdict=verdict)
    if verdict.action is Action.HOLD:
        return row
    signed = _sign(arguments, workspace, row)
    if signed is None:
        return replace(row, verdict=_overtaken())
    repository, pointer = signed
    delivery.deliver(arguments, workspace)
    feed.announce(arguments, workspace, repository, pointer)
    _forget(workspace, pointer)
    return replace(row, pointer=pointer, acted=True)


def _overtaken() -> Verdict:
    return Verdict(
        action=Action.HOLD,
        code="superseded",
        reason="somebody changed the channel meanwhile: judged again at the next look",
    )


def _sign(
    arguments: argparse.Namespace, workspace: "Workspace", row: Watched
) -> "tuple[Repository, ChannelPointer] | None":
    """Sign what was judged, where the channel still says what it was judged by.

    Power cut: the channel says what it said, or what is to be; then it is known that
    it has to be announced.
    """
    from updaterd.release import publish
    from updaterd.release.rollouts import acting, audit, memory

    pointer, evidence = row.pointer, row.evidence or Evidence()
    with workspace.locked():
        repository = opening.current(arguments, workspace)
        catalog = publish.catalog_of(workspace, repository, pointer.product)
        now = int(repository.now.timestamp())
        steered = acting.changed(catalog, pointer, row.verdict, now=now)
        if steered is None or not steered.changed:
            return None
        role = layout.channel_role(pointer.product, pointer.channel)
        repository.require_keys(role, "snapshot", "timestamp")  # or nothing is written
        catalog.point(steered.pointer)
        act = audit.Act(
            act=str(row.verdict.action),
            pointer=steered.pointer,
            version=pointer.releases[0].version,
            why=row.verdict.reason,
            counts=evidence.as_counts(),
        )
        actor = f"release watch ({acts.actor()})"
        audit.record(
            workspace.folder, repository, [act], actor=actor, now=repository.now
        )
        known = memory.load(workspace.folder)
        untold = known.untold | {(pointer.product, pointer.channel)}
        memory.save(workspace.folder, replace(known, untold=untold))
        repository.commit()
    output.show_notes(arguments, steered)
    return repository, steered.pointer


def _tell(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    untold: "frozenset[tuple[str, str]]",
) -> None:
    """Deliver and announce what an earlier look signed and could not tell of."""
    from updaterd.release import publish

    if not untold:
        return
    repository = opening.published(workspace)
    delivery.deliver(arguments, workspace)
    for product, channel in sorted(untold):
        catalog = publish.catalog_of(workspace, repository, product)
        if channel in catalog.channels():
            pointer = catalog.pointer(channel)
            feed.announce(arguments, workspace, repository, pointer)
            _forget(workspace, pointer)


def _forget(workspace: "Workspace", pointer: "ChannelPointer") -> None:
    from updaterd.release.rollouts import memory

    with workspace.locked():
        known = memory.load(workspace.folder)
        untold = known.untold - {(pointer.product, pointer.channel)}
        memory.save(workspace.folder, replace(known, untold=untold))


def _remembered(workspace: "Workspace") -> "frozenset[tuple[str, str]]":
    """Return what is untold; webhooks that are new get what comes from now on."""
    from updaterd.release.rollouts import audit, memory

    hooks = _webhooks(workspace)
    with workspace.locked():
        known = memory.load(workspace.folder)
        if any(hook.name not in known.sent for hook in hooks):
            count = len(audit.read(workspace.folder).lines)
            sent = {hook.name: known.sent.get(hook.name, count) for hook in hooks}
            known = replace(known, sent=sent)
            memory.save(workspace.folder, known)
    return known.untold


def _webhooks(workspace: "Workspace") -> Any:
    from updaterd.release.rollouts import plans, webhooks

    table = plans.configured(workspace.folder).get("webhooks", [])
    return webhooks.configured(workspace.folder, table)


def _send(workspace: "Workspace") -> None:
    """Send the lines that webhooks have not got; say what went wrong, and go on."""
    from updaterd.net import Fetcher
    from updaterd.release.rollouts import audit, memory, webhooks

    hooks = _webhooks(workspace)
    known = memory.load(workspace.folder)
    lines = audit.read(workspace.folder).lines if hooks else ()
    now = int(opening.clock().timestamp())
    for hook in hooks:
        after = known.sent.get(hook.name, len(lines))
        if after >= len(lines):
            continue
        with Fetcher(deadline_s=10.0) as fetcher:
            sent, wrong = webhooks.send(fetcher, hook, lines, after=after, now=now)
        if wrong:
            print(f"note: webhook {wrong}", file=sys.stderr, flush=True)
        with workspace.locked():
            latest = memory.load(workspace.folder)
            counts = {
                **latest.sent,
                hook.name: max(sent, latest.sent.get(hook.name, 0)),
            }
            memory.save(workspace.folder, replace(latest, sent=counts))
