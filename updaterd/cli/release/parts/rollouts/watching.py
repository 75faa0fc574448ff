# SPDX-License-Identifier: Apache-2.0
"""One look at all rollouts that have a plan: judge, act, tell."""

import argparse
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from updaterd.cli.release.parts import acts, opening, output
from updaterd.cli.release.parts.rollouts import proposing, telling
from updaterd.cli.release.parts.rollouts.proposing import Proposed
from updaterd.cli.release.parts.rollouts.watched import Watched
from updaterd.core import layout
from updaterd.core.plan import RUNNING
from updaterd.core.watching import Action, Evidence, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from updaterd.core.channel import ChannelPointer
    from updaterd.errors import UpdaterError
    from updaterd.net import Fetcher
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.rollouts.webhooks import Webhook
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
        token = _publishing_token(file)
    headers = {"Authorization": f"Bearer {token}"}
    return Reader(
        url, lambda: Fetcher(headers=headers, ca_file=arguments.ca_file, origin=url)
    )


def _publishing_token(file: "Path | None") -> str:
    """Return the token for the feed, which may read reports as well.

    Raises:
        BrokenError: there is none.
    """
    from updaterd.errors import BrokenError
    from updaterd.release import announce

    try:
        return announce.read_token(file, os.environ)
    except BrokenError as error:
        error.means = "there is no evidence, so nothing moves"
        if file is None:
            error.cause = "no token to read what machines reported"
            error.do = (
                "make one with the scope fleet:read (`updaterd token create`, at the "
                "server), then give it by --reports-token-file, UPDATERD_FLEET_TOKEN, "
                f"or the unit's LoadCredential={CREDENTIAL}; to announce what it "
                "signs, `watch` needs a publishing token besides (--token-file)"
            )
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What came of one look.

    Attributes:
        rows: each rollout that has a plan.
        errors: what went wrong besides; nothing of it kept a rollout waiting.
    """

    rows: tuple[Watched, ...]
    errors: "tuple[UpdaterError, ...]" = ()

    @property
    def error(self) -> "UpdaterError | None":
        """Return the first thing that went wrong."""
        of_rows = [row.error or row.untold for row in self.rows]
        return next((error for error in (*of_rows, *self.errors) if error), None)


def look(
    arguments: argparse.Namespace, workspace: "Workspace", reports: Reader
) -> Looked:
    """Judge every rollout that has a plan, act, and tell who is to be told.

    A halt waits for nobody who is to be told: what an earlier look signed and could
    not announce is announced after it, and webhooks that cannot be used are said.

    Raises:
        UpdaterError: nothing could be judged.
        OSError: the disk refused.

    Power cut: what was signed stands; the next look tells of it.
    """
    from updaterd.errors import UpdaterError

    errors: list[UpdaterError] = []
    hooks: tuple[Webhook, ...] = ()
    try:
        hooks = telling.webhooks(workspace)
    except UpdaterError as error:
        errors.append(error)
    before = telling.remembered(workspace, hooks)
    try:
        rows = [
            _guarded(arguments, workspace, reports, pointer)
            for pointer in _pointers(arguments, workspace)
        ]
        acted_on = {row.channel for row in rows if row.acted}
        late = telling.tell_late(arguments, workspace, before - acted_on)
        rows = [replace(row, untold=late.pop(row.channel, row.untold)) for row in rows]
        return Looked(rows=tuple(rows), errors=(*errors, *late.values()))
    finally:
        telling.send(workspace, hooks)


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

    error: UpdaterError
    try:
        return _judged(arguments, workspace, reports, pointer)
    except UpdaterError as caught:
        error = caught
    except OSError as caught:
        error = telling.refused(
            caught,
            means="nothing moves; machines see the whole of what was decided, or "
            "nothing of it",
        )
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
    proposed = _standing(workspace, row)
    if proposed is not None:
        return replace(row, proposed=proposed, error=proposed.error)
    if verdict.action is Action.HOLD:
        return row
    signed = _sign(arguments, workspace, row)
    if signed is None:
        return replace(row, verdict=_overtaken())
    if isinstance(signed, Proposed):
        return replace(row, proposed=signed, error=signed.error)
    repository, pointer = signed
    untold = telling.tell(arguments, workspace, repository, pointer)
    return replace(row, pointer=pointer, acted=True, untold=untold)


def _standing(workspace: "Workspace", row: Watched) -> Proposed | None:
    """Return what an earlier look proposed for the channel, if that still stands.

    Power cut: see `proposing.standing`.
    """
    if not (workspace.folder / proposing.FOLDER).is_dir():
        return None
    with workspace.locked():
        repository = opening.published(workspace)
        return proposing.standing(workspace, repository, row.pointer, row.verdict)


def _overtaken() -> Verdict:
    return Verdict(
        action=Action.HOLD,
        code="superseded",
        reason="somebody changed the channel meanwhile: judged again at the next look",
    )


def _sign(
    arguments: argparse.Namespace, workspace: "Workspace", row: Watched
) -> "tuple[Repository, ChannelPointer] | Proposed | None":
    """Sign what was judged, where the channel still says what it was judged by.

    Where the channel needs more keys than are here, it is only proposed.

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
        proposes = proposing.only_proposes(workspace, repository, role)
        # or nothing is written
        if proposes:
            laid = proposing.standing(workspace, repository, pointer, row.verdict)
            if laid is not None:  # by another who watches, since we looked
                return laid
            proposing.prepare(workspace, repository, role)
        else:
            repository.require_keys(role, "snapshot", "timestamp")
        catalog.point(steered.pointer)
        act = audit.Act(
            act=f"{proposing.PREFIX if proposes else ''}{row.verdict.action}",
            pointer=steered.pointer,
            version=pointer.releases[0].version,
            why=row.verdict.reason,
            counts=evidence.as_counts(),
        )
        actor = f"release watch ({acts.actor()})"
        audit.record(
            workspace.folder, repository, [act], actor=actor, now=repository.now
        )
        if proposes:
            action = row.verdict.action
            return proposing.propose(workspace, repository, steered.pointer, action)
        known = memory.load(workspace.folder)
        untold = known.untold | {(pointer.product, pointer.channel)}
        memory.save(workspace.folder, replace(known, untold=untold))
        repository.commit()
    output.show_notes(arguments, steered)
    return repository, steered.pointer
