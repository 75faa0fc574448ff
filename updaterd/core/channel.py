# SPDX-License-Identifier: Apache-2.0
"""The channel pointer: which release a channel offers, and to how many machines.

Carried in the `custom` member of the TUF target `PRODUCT/channels/CHANNEL.json`,
signed by the online role `PRODUCT.CHANNEL`. It only chooses among releases that
the release key made; what a release *is* stands in its manifest.
"""

from updaterd.core import pace as paces
from updaterd.core.announcement import MAX_SPREAD_S
from updaterd.core.dataclass import dataclass
from updaterd.core.forms import MAX_MANIFESTS, Forms, read_forms
from updaterd.core.json_fields import Fields
from updaterd.core.names import check_name, check_version
from updaterd.core.pace import Pace
from updaterd.core.plan import HALTED, Plan
from updaterd.core.plan import parse as parse_plan
from updaterd.core.rollout import EVERYBODY, Rollout
from updaterd.core.stones import MAX_STONES, Stone
from updaterd.core.understanding import check_understood, marks, needed
from updaterd.errors import MalformedError

__all__ = [
    "EVERYBODY",
    "MAX_OFFERS",
    "MAX_PLATFORMS",
    "ChannelPointer",
    "Offer",
    "Rollout",
    "parse_custom",
]

MAX_OFFERS = 16
MAX_TAGS = 8
MAX_REASON = 200
_KNOWN = frozenset({
    "schema", "must_understand", "product", "channel", "paused", "floor_seq",
    "releases", "platforms", "stones", "plan", "reason", "manifests",
})  # fmt: skip
MAX_PLATFORMS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One release a channel points to.

    Attributes:
        platforms: whose machines it is for, sorted; None: not said, so for all.
        from_seq_min: lowest seq of an installed release that it can be installed over,
            as its manifest says, so that none has to be fetched to know it.
        pace: the same of how soon: where the manifest says another, that one counts.
    """

    version: str
    seq: int
    rollout: Rollout
    urgency: str = "normal"
    platforms: tuple[str, ...] | None = None
    from_seq_min: int = 0
    pace: Pace | None = None

    def is_for(self, platform: str) -> bool:
        """Tell whether it is for machines of this platform."""
        return self.platforms is None or platform in self.platforms

    def as_custom(self) -> dict[str, object]:
        """Return the JSON object that is signed."""
        item: dict[str, object] = {
            "version": self.version,
            "seq": self.seq,
            "urgency": self.urgency,
            "rollout": {
                "permille": self.rollout.permille,
                "salt": self.rollout.salt,
                "window_s": self.rollout.window_s,
                **({"tags": list(self.rollout.tags)} if self.rollout.tags else {}),
            },
        }
        if self.platforms is not None:
            item["platforms"] = list(self.platforms)
        if self.from_seq_min:
            item["from_seq_min"] = self.from_seq_min
        if self.pace is not None:
            item["pace"] = self.pace.as_member()
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPointer:
    """What one channel of one product offers, newest `seq` first.

    A machine's target is the first offer for its platform whose rollout reaches it.

    Attributes:
        must_understand: names of members without which the rest is not to be used.
        stones: releases that older machines install on their way to an offer.
        reason: why it is paused, for people: one line.
        plan: how its newest release is rolled out, and where that stands.
        manifests: smaller forms in which manifests of these travel.
    """

    product: str
    channel: str
    paused: bool
    floor_seq: int
    releases: tuple[Offer, ...]
    must_understand: tuple[str, ...] = ()
    stones: tuple[Stone, ...] = ()
    reason: str = ""
    plan: Plan | None = None
    manifests: tuple[Forms, ...] = ()

    @property
    def halted(self) -> str:
        """Return why the plan stopped the channel; "" where it did not."""
        if not self.paused or self.plan is None or self.plan.state != HALTED:
            return ""
        return self.plan.reason

    def as_custom(self) -> dict[str, object]:
        """Return the JSON object that is signed."""
        return {
            **marks(self.must_understand),
            "product": self.product,
            "channel": self.channel,
            "paused": self.paused,
            "floor_seq": self.floor_seq,
            "releases": [offer.as_custom() for offer in self.releases],
            **(
                {"stones": [stone.as_custom() for stone in self.stones]}
                if self.stones
                else {}
            ),
            **({"reason": self.reason} if self.reason else {}),
            **({"plan": self.plan.as_custom()} if self.plan else {}),
            **(
                {"manifests": [forms.as_custom() for forms in self.manifests]}
                if self.manifests
                else {}
            ),
        }


def _platforms(item: Fields) -> tuple[str, ...] | None:
    """Return whom an offer is for.

    Raises:
        MalformedError: no names, or too many, or for nobody.
    """
    if "platforms" not in item:
        return None
    names = item.texts("platforms", most=MAX_PLATFORMS)
    if not names:
        raise MalformedError(f"{item.where} is for no platform")
    return tuple(sorted({check_name("platform", name) for name in names}))


def _from_seq_min(item: Fields) -> int:
    return item.integer("from_seq_min") if "from_seq_min" in item else 0


def _reason(item: Fields) -> str:
    """Return why a channel is paused.

    Raises:
        MalformedError: it is not one line of text.
    """
    reason = item.text("reason", longest=MAX_REASON) if "reason" in item else ""
    if not reason.isprintable():
        raise MalformedError(f"{item.where}: its reason is not one line of text")
    return reason


def _stone(item: Fields) -> Stone:
    return Stone(
        version=check_version(item.text("version")),
        seq=item.integer("seq", low=1),
        from_seq_min=_from_seq_min(item),
        platforms=_platforms(item) or (),
    )


def _offer(item: Fields) -> Offer:
    rollout = item.fields("rollout")
    urgency = item.text("urgency") if "urgency" in item else "normal"
    return Offer(
        version=check_version(item.text("version")),
        seq=item.integer("seq", low=1),
        urgency=urgency if urgency == "critical" else "normal",
        platforms=_platforms(item),
        from_seq_min=_from_seq_min(item),
        pace=paces.read(item.fields("pace")) if "pace" in item else None,
        rollout=Rollout(
            permille=rollout.integer("permille", high=EVERYBODY),
            salt=rollout.text("salt"),
            window_s=rollout.integer("window_s", high=MAX_SPREAD_S),
            tags=tuple(
                check_name("tag", tag) for tag in rollout.texts("tags", most=MAX_TAGS)
            ),
        ),
    )


def parse_custom(item: Fields, *, product: str, channel: str) -> ChannelPointer:
    """Return the pointer in a target's `custom`.

    Args:
        item: the `custom` object.
        product: the product that was asked for.
        channel: the channel that was asked for.

    Raises:
        MalformedError: broken, or of another product or channel: a validly
            signed pointer in the wrong place is an attack, not a typo.
        NotUnderstoodError: made for a newer updaterd.
    """
    check_understood(item, _KNOWN)
    pointer = ChannelPointer(
        product=check_name("product", item.text("product")),
        channel=check_name("channel", item.text("channel")),
        paused=item.flag("paused"),
        floor_seq=item.integer("floor_seq") if "floor_seq" in item else 0,
        releases=item.objects("releases", _offer, most=MAX_OFFERS),
        must_understand=needed(item),
        stones=item.objects("stones", _stone, most=MAX_STONES)
        if "stones" in item
        else (),
        reason=_reason(item),
        plan=parse_plan(item.fields("plan")) if "plan" in item else None,
        manifests=item.objects("manifests", read_forms, most=MAX_MANIFESTS)
        if "manifests" in item
        else (),
    )
    order = [offer.seq for offer in pointer.releases]
    if order != sorted(set(order), reverse=True):
        raise MalformedError(
            f"{item.where}: releases must be newest first, each seq once: {order}"
        )
    if order and pointer.floor_seq > order[-1]:
        raise MalformedError(
            f"{item.where}: the floor {pointer.floor_seq} is above seq {order[-1]}, "
            "which it offers",
            means="it forbids what it offers",
            do="tell the publisher; what is installed goes on running",
            code="floor_over_offer",
        )
    if (pointer.product, pointer.channel) != (product, channel):
        raise MalformedError(
            f"{item.where} is for {pointer.product}/{pointer.channel}, "
            f"asked for {product}/{channel}",
            code="wrong_target",
        )
    return pointer
