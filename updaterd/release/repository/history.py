# SPDX-License-Identifier: Apache-2.0
"""What a channel offered before: kept in its own signed role, beside the pointer.

Without it, nobody knows what a machine may go back to when a release is withdrawn:
that a release exists says neither that this channel ever offered it, nor to whom.
The role carries one member, ignored by machines:

    "x-updaterd-offered": {"releases": {VERSION: [PLATFORM, ...]},
                           "floor": SEQ, "floor_keys": [KEYID, ...]}

A release is listed once it was offered at all, with the platforms whose machines all
got it and were not taken back from it since. The floor is the highest that a release
offered here has set on the machines which installed it. It is the word of the
release key, and counts as long as that key does (docs/decisions/0019).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from updaterd.core.channel import EVERYBODY, ChannelPointer

FIELD = "x-updaterd-offered"
KEPT = 32
"""Releases remembered for each channel, the newest: machines load this, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What one channel offered so far.

    Attributes:
        releases: version -> platforms where it was everybody's.
        floor: lowest `seq` that all its machines still accept.
        floor_keys: ids of the release keys when that was said.
    """

    releases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    floor: int = 0
    floor_keys: tuple[str, ...] = ()

    def includes(self, version: str) -> bool:
        """Tell whether a release was offered here, to whomever."""
        return version in self.releases

    def as_member(self) -> dict[str, object]:
        """Return what stands in the role."""
        member: dict[str, object] = {
            "releases": {
                name: list(platforms) for name, platforms in self.releases.items()
            }
        }
        if self.floor:
            member |= {"floor": self.floor, "floor_keys": list(self.floor_keys)}
        return member


def read(member: Any) -> Offered | None:
    """Return what a role says; None: it says nothing that can be read."""
    try:
        releases = {
            str(version): tuple(str(name) for name in names)
            for version, names in member["releases"].items()
        }
        keys = tuple(str(key) for key in member.get("floor_keys", ()))
        return Offered(
            releases=releases, floor=int(member.get("floor", 0)), floor_keys=keys
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def after(
    before: Offered,
    pointer: ChannelPointer,
    *,
    seqs: Mapping[str, int],
    made_for: Mapping[str, Collection[str]],
) -> Offered:
    """Return what was offered once the channel says this, too.

    Args:
        before: what was offered until now.
        pointer: what the channel says from now on.
        seqs: of the releases that exist; what does not is forgotten.
        made_for: their platforms.
    """
    reached = {
        version: set(names)
        for version, names in before.releases.items()
        if version in seqs
    }
    tops: dict[str, int] = {}
    for offer in pointer.releases:
        names = made_for.get(offer.version, ())
        platforms = [name for name in names if offer.is_for(name)]
        if offer.version in seqs:
            reached.setdefault(offer.version, set())
            if offer.rollout.permille >= EVERYBODY:
                reached[offer.version].update(platforms)
            else:
                reached[offer.version].difference_update(platforms)
        for name in platforms:
            tops[name] = max(tops.get(name, 0), offer.seq)
    for version, everybodys in reached.items():
        # Gone back from: not what anybody should be sent to again.
        everybodys -= {
            name for name in everybodys if seqs[version] > tops.get(name, seqs[version])
        }
    newest = sorted(reached, key=lambda version: seqs[version], reverse=True)[:KEPT]
    return Offered(
        releases={version: tuple(sorted(reached[version])) for version in newest},
        floor=before.floor,
        floor_keys=before.floor_keys,
    )


def replay(
    pointers: Iterable[ChannelPointer],
    *,
    seqs: Mapping[str, int],
    made_for: Mapping[str, Collection[str]],
) -> Offered:
    """Return what a channel offered, from the editions of its role, oldest first.

    For repositories that were made before roles said it.
    """
    history = Offered()
    for pointer in pointers:
        history = after(history, pointer, seqs=seqs, made_for=made_for)
    return history
