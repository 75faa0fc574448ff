# SPDX-License-Identifier: Apache-2.0
"""What a decision about a product is, and the facts that it is made from."""

import math
from collections.abc import Mapping
from dataclasses import field

from updaterd.core.channel import Offer
from updaterd.core.dataclass import dataclass
from updaterd.core.pace import Pace
from updaterd.core.windows import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A release that this machine does not take, and until when.

    Attributes:
        code: why, when it is no verdict on the release: it is passed over, whatever
            a person says about retrying.
        until: for who asks now.
        retried_at: when it is tried again without being asked for once more.
    """

    seq: int
    reason: str
    code: str = ""
    until: float = math.inf
    retried_at: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true on this machine now. Times are Unix seconds.

    Attributes:
        speaker: the role that the next two are about.
        authority: (root version, role version) of the metadata at hand.
        seen_authority: the highest such pair that was accepted here and still counts.
        hold_until: end of the hold; infinity for one without end; None: no hold.
        hold_at: the release that the hold is at, if a person named one.
        named: the release that a person wants here, whatever the channel offers.
        window: the open maintenance window, or the next; None: none is configured.
        first_seen_at: when this machine first saw the target it now has, if known.
        pending_since: since when it has had an update to install, if known.
        tags: what the owner calls this machine; rollouts may name some.
        paces: of the releases whose manifests were read, by version: they go before
            what a channel says of them.
        forced: a person said `--now`: overrides window, splay, deferral and pace.
        retry_blocked: a person said `--retry`: overrides a block.
    """

    now: float
    machine_id: str
    updater: str
    platform: str
    installed_version: str | None = None
    installed_seq: int | None = None
    seq_floor: int = 0
    speaker: str = "channel"
    authority: tuple[int, int] = (0, 0)
    seen_authority: tuple[int, int] = (0, 0)
    blocked: Mapping[str, Block] = field(default_factory=dict)
    on_disk: frozenset[str] = frozenset()
    hold_until: float | None = None
    hold_reason: str = ""
    hold_at: str = ""
    named: str = ""
    window: Span | None = None
    first_seen_at: float | None = None
    pending_since: float | None = None
    max_deferral_s: float = math.inf
    tags: tuple[str, ...] = ()
    paces: Mapping[str, Pace | None] = field(default_factory=dict)
    forced: bool = False
    retry_blocked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Base of what `decide` returns.

    Attributes:
        code: stable, snake_case; scripts match it.
        reason: one sentence for a person.
        offer: the release it is about, when there is one.
    """

    code: str
    reason: str
    offer: Offer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Current(Decision):
    """Nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Decision):
    """An update is pending; `until` says when to look again, None: when told."""

    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(Decision):
    """The pointer asks for something this machine must not do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act(Decision):
    """Bring this release on. `offer` is always set.

    `code` is `install`, `upgrade`, `step_back`, or `stepping_stone`: an upgrade that
    leads on to another one.
    """

    target: Offer
    on_disk: bool = False
