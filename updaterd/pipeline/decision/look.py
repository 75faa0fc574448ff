# SPDX-License-Identifier: Apache-2.0
"""One look at the repository: its word, what is decided from it, and that journalled.

A run looks when it begins, and again when the release is staged: hours may lie between
the two, in which a person holds updates, the publisher pauses the channel or withdraws
the release, or the maintenance window ends.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime

from updaterd.core import fitting, planner
from updaterd.core.channel import ChannelPointer, Offer
from updaterd.core.dataclass import dataclass
from updaterd.core.decision import Act, Decision, Facts, Refuse, Wait
from updaterd.core.manifest import Manifest
from updaterd.errors import NotUnderstoodError
from updaterd.pipeline.decision import facts, notes
from updaterd.pipeline.run import Request, Run
from updaterd.trust.client import View
from updaterd.trust.signed import Signed

_NOT_ACCEPTED = frozenset({"metadata_rollback", NotUnderstoodError.code})
_HOPELESS = frozenset({"blocked", "below_floor", "no_such_release"})
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen, and what it means for the product.

    Attributes:
        notes: what the repository says about itself that a person should know.
        newer: what the channel offers beyond the release that a person named.
    """

    view: View
    known: Facts
    decision: Decision
    notes: tuple[str, ...]
    newer: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The release that was decided for: as offered, listed, and signed."""

    offer: Offer
    manifest: Manifest
    signed: Signed


def take(
    run: Run,
    request: Request,
    *,
    staged: Choice | None = None,
) -> Look:
    """Ask the repository, decide, and journal both; a dry run journals nothing.

    Args:
        run: one product on this machine.
        request: what the caller asked for.
        staged: the release that was decided for before, whose listing is known.

    Raises:
        TransientError: the repository cannot be asked or believed now.
        MalformedError: what it signed makes no sense.

    Power cut: decided anew by the next run.
    """
    heard = run.journal.newest_event()  # before asking: later ones are news
    view = _refresh(run, request)
    warnings = tuple(warning.text for warning in view.warnings)
    newer = ""
    try:
        pointer = view.channel(run.name, run.product.channel)
    except NotUnderstoodError as error:
        known = facts.without_a_view(run)
        decision: Decision = Wait(code=error.code, reason=error.cause)
        warnings = (*warnings, error.do)
    else:
        known, decision = _decide(run, request, view, pointer, staged)
        is_kept = decision.code in _HOPELESS and known.named == known.hold_at
        if is_kept and not request.dry and notes.let_go(run):
            known, decision = _decide(run, request, view, pointer, staged)
        newer = _newer(pointer, known, decision)
    # what a person named by mistake is told to that person, and no state of the machine
    is_slip = bool(request.to) and isinstance(decision, Refuse)
    if not request.dry and not is_slip:
        notes.write_decision(run, decision, known, heard)
        if decision.code not in _NOT_ACCEPTED:
            notes.accept(run, view)
    return Look(view=view, known=known, decision=decision, notes=warnings, newer=newer)


def _newer(pointer: ChannelPointer, known: Facts, decision: Decision) -> str:
    """Return what the channel offers beyond what a person named; "" for nothing."""
    if not known.named or decision.offer is None:
        return ""
    newest = next((o for o in pointer.releases if o.is_for(known.platform)), None)
    is_newer = newest is not None and newest.seq > decision.offer.seq
    return newest.version if newest is not None and is_newer else ""


def _decide(
    run: Run,
    request: Request,
    view: View,
    pointer: ChannelPointer,
    staged: Choice | None,
) -> tuple[Facts, Decision]:
    known = facts.gather(run, request, view)
    named = request.to or known.hold_at
    if named and (request.to or named != known.installed_version):
        return _decide_named(run, view, pointer, replace(known, named=named))
    decision = planner.decide(pointer, known)
    if staged is None or not _is_same(view, decision, staged):
        pointer, known = facts.passing_over(view, pointer, known)
        decision = planner.decide(pointer, known)
    known = replace(
        known,
        first_seen_at=facts.first_seen(run, decision, now=known.now),
        pending_since=planner.pending_since(decision, known),
    )
    return known, planner.decide(pointer, known)


def _decide_named(
    run: Run, view: View, pointer: ChannelPointer, known: Facts
) -> tuple[Facts, Decision]:
    """Decide about the release that a person named."""
    offer = facts.named(view, pointer, known)
    if isinstance(offer, Decision):
        return known, offer
    decision = planner.toward_named(pointer, offer, known)
    known = replace(
        known,
        first_seen_at=facts.first_seen(run, decision, now=known.now),
        pending_since=planner.pending_since(decision, known),
    )
    return known, planner.toward_named(pointer, offer, known)


def choose(latest: Look, name: str) -> Choice:
    """Return the release that was decided for.

    Raises:
        TransientError: its listing cannot be fetched or verified now.
        RejectedError: nobody signed it, or it does not fit here.
        TypeError: nothing is to be done.
    """
    decision, platform = latest.decision, latest.known.platform
    if not isinstance(decision, Act):
        raise TypeError(decision)
    target = decision.target
    manifest = latest.view.manifest(name, target.version, platform)
    fitting.check_manifest(manifest, product=name, target=target, facts=latest.known)
    return Choice(target, manifest, latest.view.signed(name, target.version, platform))


def is_chosen(latest: Look, choice: Choice) -> bool:
    """Tell whether a staged release is what is decided for now.

    The same name with another signed listing is another release.

    Raises:
        TransientError: its listing cannot be fetched or verified now.
        RejectedError: nobody vouches for it any more.
    """
    return _is_same(latest.view, latest.decision, choice)


def _is_same(view: View, decision: Decision, staged: Choice) -> bool:
    known = staged.manifest
    if not isinstance(decision, Act):
        return False
    if (decision.target.version, decision.target.seq) != (known.version, known.seq):
        return False
    again = view.signed(known.product, known.version, known.platform)
    return again.length == staged.signed.length and all(
        again.read(at, _PIECE) == staged.signed.read(at, _PIECE)
        for at in range(0, again.length, _PIECE)
    )


def _refresh(run: Run, request: Request) -> View:
    """Return the repository's word, and journal what it says about itself."""
    view = run.services.trust().refresh(
        now=datetime.fromtimestamp(request.as_of or run.services.clock(), UTC),
        pushed=request.pushed,
        heard=run.journal.times(),
    )
    if not request.dry:
        rows = [
            {"code": warning.code, "what": warning.text} for warning in view.warnings
        ]
        run.journal.set_meta("warnings", json.dumps(rows))
    return view
