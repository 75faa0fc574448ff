# SPDX-License-Identifier: Apache-2.0
"""What to do about a product, and why: the one place that decides.

Theory. The channel pointer lists offers, newest first. The target of this machine
is the first offer for its platform whose rollout reaches it and that is not blocked
here; where a newer one is for other platforms only, this machine goes on as if that
were not there. Then:

    target is installed                        Current
    target is newer (higher seq)               Act, or Wait for hold, window, splay
    its pace keeps this machine waiting        Act on the newest offer below whose turn
                                               has come; where there is none, Wait
    target cannot be installed over what is    Act: the next stepping stone (`stones`);
    installed                                  where none leads there, what is below
    installed release is still offered         Current: a rollout never takes back
    target is older                            Act: an authorised step back
    pointer older than one seen before         Refuse: a replay, whoever signed it
    below the floor                            Refuse

The order is `seq`; version strings are labels. Pure: facts in, decision out. Every
decision has a stable `code` and a `reason`, which `updaterd status` prints as it is.
"""

import math
from dataclasses import replace

from updaterd.core import fitting, pacing
from updaterd.core.channel import ChannelPointer, Offer
from updaterd.core.decision import Act, Current, Decision, Facts, Refuse, Wait
from updaterd.core.rollout import is_reached
from updaterd.core.stones import Stone, way
from updaterd.core.turn import Waiting, turn_at

_SETTLED = frozenset({"current", "ahead_of_rollout", "blocked", "no_way", "paced"})
_DELAYS = frozenset({"held", "outside_window", "splay"})


def decide(pointer: ChannelPointer, facts: Facts) -> Decision:
    """Return what to do about the pointer's product."""
    if facts.authority < facts.seen_authority:
        return Refuse(
            code="metadata_rollback",
            reason=f"the repository shows {facts.speaker} metadata "
            f"{facts.authority}, this machine has already accepted "
            f"{facts.seen_authority}: a stale mirror or a replay",
        )
    suitable = tuple(o for o in pointer.releases if o.is_for(facts.platform))
    if pointer.releases and not suitable and not pointer.paused:
        first = pointer.releases[0].version
        reason = f"neither {first} nor what is below was made for {facts.platform}"
        return _standing_by(code="not_for_platform", reason=reason, facts=facts)
    pointer = replace(pointer, releases=suitable)
    reached = [
        o for o in suitable if is_reached(o.rollout, facts.machine_id, facts.tags)
    ]
    if pointer.paused or not reached:
        return _nothing_for_us(pointer, facts)
    target = _first_allowed(reached, facts)
    if target is None or (_is_blocked(reached[0], facts) and _is_here(target, facts)):
        return _blocked(reached[0], pointer, facts)
    if _is_here(target, facts):
        reason = f"{target.version} is installed"
        return Current(code="current", reason=reason, offer=target)
    return _toward(target, pointer, facts)


def toward_named(pointer: ChannelPointer, offer: Offer, facts: Facts) -> Decision:
    """Return what to do about a release that a person named for this machine.

    It need not be offered, nor have its turn, and the channel may be paused. What a
    publisher signs against machines holds all the same: the floor, and what it can be
    installed over.

    Args:
        pointer: what the channel says.
        offer: the release, as its manifest says it.
        facts: with the release as `named`.
    """
    return decide(replace(pointer, paused=False, releases=(offer,)), facts)


def no_such_name(product: str, facts: Facts) -> Refuse:
    """Return that a person named what its publisher does not sign."""
    return Refuse(
        code="no_such_release",
        reason=f"a person named {facts.named}, and the publisher of {product} signs no "
        f"such release for {facts.platform}",
    )


def _nothing_for_us(pointer: ChannelPointer, facts: Facts) -> Decision:
    """Return why nothing is to be done: for a machine without a release, a wait."""
    if pointer.paused:
        why = pointer.halted or pointer.reason
        why = f": {why}" if why else ""
        code, reason = "paused", f"channel {pointer.channel} is paused{why}"
    elif not pointer.releases:
        code, reason = "nothing_offered", f"channel {pointer.channel} has no release"
    else:
        code = "not_in_rollout"
        reason = f"{pointer.releases[0].version} is not rolled out to this machine"
    return _standing_by(code=code, reason=reason, facts=facts)


def _standing_by(*, code: str, reason: str, facts: Facts) -> Decision:
    """Return that there is nothing to do, or to wait where nothing is installed."""
    if facts.installed_seq is None:
        return Wait(code=code, reason=f"{reason}; nothing is installed yet")
    return Current(code=code, reason=reason)


def _is_here(offer: Offer, facts: Facts) -> bool:
    # both: a machine may have come from another repository, where seq counts anew
    installed = (facts.installed_version, facts.installed_seq)
    return (offer.version, offer.seq) == installed


def _is_blocked(offer: Offer, facts: Facts) -> bool:
    block = facts.blocked.get(offer.version)
    return (
        block is not None
        and block.seq == offer.seq
        and facts.now < block.until
        and not (facts.retry_blocked and not block.code)
    )


def _first_allowed(reached: list[Offer], facts: Facts) -> Offer | None:
    """Return the newest offer that is not blocked.

    A block alone never leads back below what is installed: that takes a signature.
    """
    installed_seq = facts.installed_seq or 0
    for offer in reached:
        if not _is_blocked(offer, facts):
            return offer if offer is reached[0] or offer.seq >= installed_seq else None
    return None


def _blocked(offer: Offer, pointer: ChannelPointer, facts: Facts) -> Wait:
    block = facts.blocked[offer.version]
    if block.code:
        return Wait(
            code=block.code,
            reason=f"{offer.version} is passed over: {block.reason}",
            offer=offer,
        )
    return Wait(
        code="blocked",
        reason=f"{offer.version} is blocked here ({block.reason}) until a newer "
        f"release, or `updaterd update {pointer.product} --retry`",
        offer=offer,
        until=None if math.isinf(block.retried_at) else block.retried_at,
    )


def _toward(target: Offer, pointer: ChannelPointer, facts: Facts) -> Decision:
    """Return the decision about a target that is not what is installed."""
    still_offered = any(_is_here(offer, facts) for offer in pointer.releases)
    if still_offered and target.seq < (facts.installed_seq or 0):
        return Current(
            code="ahead_of_rollout",
            reason=f"{facts.installed_version} is installed and still offered",
        )
    floor = max(facts.seq_floor, pointer.floor_seq)
    if target.seq < floor:
        return Refuse(
            code="below_floor",
            reason=f"{target.version} (seq {target.seq}) is below the floor {floor}",
            offer=target,
        )
    paced = pacing.waiting(target, pointer.product, facts)
    if paced is not None and _held(target, facts) is None:
        return _meanwhile(target, pointer, facts) or paced
    if fitting.is_too_old(facts, target.from_seq_min):
        return _by_stones(target, pointer, facts, floor)
    return _delay(target, pointer.product, facts) or _act(target, facts)


def _meanwhile(target: Offer, pointer: ChannelPointer, facts: Facts) -> Decision | None:
    """Return what to do while the pace of the target keeps this machine waiting.

    A publisher who releases every day must not keep a machine where it is: the newest
    offer below whose turn has come is installed, never over a newer one. A machine that
    has nothing yet takes the target where there is no such offer: nothing runs on it
    that could break.
    """
    installed = facts.installed_seq
    goes_on = installed is not None and target.seq > installed
    for offer in pointer.releases:
        if (
            offer.seq >= target.seq
            or not is_reached(offer.rollout, facts.machine_id, facts.tags)
            or _is_blocked(offer, facts)
            or pacing.waiting(offer, pointer.product, facts) is not None
        ):
            continue
        if _is_here(offer, facts) or (goes_on and offer.seq <= (installed or 0)):
            return None
        decision = _toward(offer, pointer, facts)
        if isinstance(decision, Act) or decision.code in _DELAYS:
            return decision
    if installed is None:
        return _delay(target, pointer.product, facts) or _act(target, facts)
    return None


def _by_stones(
    target: Offer, pointer: ChannelPointer, facts: Facts, floor: int
) -> Decision:
    """Return the next step to a target that what is installed is too old for."""
    start = facts.installed_seq or 0
    below = [
        offer
        for offer in pointer.releases
        if start < offer.seq < target.seq
        and offer.seq >= floor
        and is_reached(offer.rollout, facts.machine_id, facts.tags)
        and not _is_blocked(offer, facts)
        and pacing.waiting(offer, pointer.product, facts) is None
    ]
    stones = [Stone(o.version, o.seq, o.from_seq_min, ()) for o in below]
    stones += [
        stone
        for stone in pointer.stones
        if facts.platform in stone.platforms
        and stone.seq >= floor
        and not _is_blocked(_hop(stone, target), facts)
    ]
    steps = way(start, target.seq, target.from_seq_min, stones)
    if steps:
        named = {offer.version: offer.platforms for offer in below}
        hop = _hop(steps[0], target)
        hop = replace(hop, platforms=named.get(hop.version, (facts.platform,)))
        delay = pacing.waiting(hop, pointer.product, facts)
        delay = delay or _delay(hop, pointer.product, facts)
        return delay or Act(
            code="stepping_stone",
            reason=f"{facts.installed_version} -> {hop.version}, on the way to "
            f"{target.version}, which is installed over seq {target.from_seq_min} or "
            "later",
            offer=hop,
            target=hop,
            on_disk=hop.version in facts.on_disk,
        )
    for offer in below:
        decision = _toward(offer, pointer, facts)
        if decision.code != "no_way":
            return decision
    return Wait(
        code="no_way",
        reason=f"{target.version} is installed over seq {target.from_seq_min} or "
        f"later, and no release that {pointer.channel} names leads there from "
        f"{facts.installed_version} (seq {start})",
        offer=target,
    )


def _hop(stone: Stone, target: Offer) -> Offer:
    """Return a stone as an offer: it is rolled out as what it leads to.

    Its pace is for its manifest to say.
    """
    return replace(
        target,
        version=stone.version,
        seq=stone.seq,
        from_seq_min=stone.from_seq_min,
        pace=None,
    )


def _held(target: Offer, facts: Facts) -> Wait | None:
    """Return that a hold stops the target; one that is at what was named does not."""
    is_pinned = bool(facts.named) and facts.named == facts.hold_at
    if is_pinned or facts.hold_until is None or facts.now >= facts.hold_until:
        return None
    why = f": {facts.hold_reason}" if facts.hold_reason else ""
    return Wait(
        code="held",
        reason=f"{target.version} waits: updates are on hold{why}",
        offer=target,
        until=None if math.isinf(facts.hold_until) else facts.hold_until,
    )


def _delay(target: Offer, product: str, facts: Facts) -> Wait | None:
    """Return why the target must wait, if it must."""
    if held := _held(target, facts):
        return held
    if facts.forced or facts.installed_seq is None:
        return None  # nothing runs yet: no window to respect, nothing to spread
    seen_at = facts.now if facts.first_seen_at is None else facts.first_seen_at
    window = None if target.urgency == "critical" else facts.window
    turn = turn_at(
        target.rollout,
        facts.machine_id,
        Waiting(
            seen_at=seen_at,
            pending_since=seen_at
            if facts.pending_since is None
            else facts.pending_since,
            paced_until=pacing.turn_at(
                pacing.pace_of(target, facts), target, product, facts
            )
            or 0.0,
            # one that is still there is at what was named, and keeps it from nothing
            hold_ended_at=0.0 if facts.hold_at else facts.hold_until or 0.0,
            max_deferral_s=facts.max_deferral_s,
            window=window,
        ),
    )
    if facts.now >= turn:
        return None
    if window is not None and facts.now < window[0]:
        return Wait(
            code="outside_window",
            reason=f"{target.version} waits for the maintenance window",
            offer=target,
            until=turn,
        )
    return Wait(
        code="splay",
        reason=f"{target.version} is spread over "
        f"{target.rollout.window_s} s; this machine's turn is later",
        offer=target,
        until=turn,
    )


def pending_since(decision: Decision, facts: Facts) -> float | None:
    """Return since when an update has been pending here, now that this was decided.

    From the first one on, whatever newer ones follow it, until the machine is where
    its channel wants it, or has tried. A channel that is paused meanwhile wants
    nothing: the wait goes on when it is resumed, but nobody is overdue before.

    Args:
        decision: what was decided.
        facts: what it was decided from.
    """
    before = facts.pending_since
    if decision.code in _SETTLED:
        return None
    if decision.offer is None or isinstance(decision, Refuse):
        return before
    if before is None:
        return facts.now
    since = min(before, facts.now)  # a clock that was set back must not defer longer
    if facts.first_seen_at is None:  # nothing was wanted when it was last looked
        return max(since, facts.now - facts.max_deferral_s)
    return since


def _act(target: Offer, facts: Facts) -> Act:
    on_disk = target.version in facts.on_disk
    if facts.installed_seq is None:
        code, reason = "install", f"first install of {target.version}"
    elif target.seq > facts.installed_seq:
        code = "upgrade"
        reason = f"{facts.installed_version} -> {target.version}"
    elif facts.named == target.version:
        code = "step_back"
        reason = f"a person went back from {facts.installed_version} to {facts.named}"
    else:
        code = "step_back"
        reason = (
            f"the channel went back from {facts.installed_version} to {target.version}"
        )
    return Act(code=code, reason=reason, offer=target, target=target, on_disk=on_disk)
