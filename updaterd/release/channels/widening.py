# SPDX-License-Identifier: Apache-2.0
"""Whom the newest offer of a channel reaches: wider by a word, narrower by force."""

from updaterd.core.channel import EVERYBODY, ChannelPointer, Offer
from updaterd.errors import RejectedError
from updaterd.release.channels import offers
from updaterd.release.channels.steering import Steered, newest, settled, spelled_out
from updaterd.release.repository.catalog import Catalog


def reach(  # noqa: PLR0913 - what can be said of a rollout
    catalog: Catalog,
    channel: str,
    permille: int | None = None,
    window_s: int | None = None,
    *,
    tags: tuple[str, ...] | None = None,
    force: bool = False,
) -> Steered:
    """Return a channel whose newest offer reaches more machines, or fewer.

    What is None stays as it is.

    Raises:
        BrokenError: it offers nothing.
        RejectedError: the others would be left with what is not offered to them; or it
            would reach fewer, which takes `force`.
    """
    before, pointer = catalog.pointer(channel), spelled_out(catalog, channel)
    top = newest(pointer)
    catalog.require(top.version)
    permille = top.rollout.permille if permille is None else permille
    tags = top.rollout.tags if tags is None else tags
    if not force:
        _check_wider(pointer, top, permille, tags)
    changed = offers.offer(
        pointer,
        top.version,
        top.seq,
        permille=permille,
        window_s=top.rollout.window_s if window_s is None else window_s,
        urgency=top.urgency,
        platforms=top.platforms,
        tags=tags,
        pace=top.pace,
    )
    return settled(catalog, before, changed)


def _check_wider(
    pointer: ChannelPointer, top: Offer, permille: int, tags: tuple[str, ...]
) -> None:
    """Refuse to take a release from machines that it was offered to.

    Raises:
        RejectedError: that is what it would do.
    """
    rollout = top.rollout
    dropped = sorted(set(rollout.tags) - set(tags)) if permille < EVERYBODY else []
    if permille >= rollout.permille and not dropped:
        return
    cause = f"from {rollout.permille} of 1000 machines to {permille}"
    if permille >= rollout.permille:
        cause = f"by those tagged {', '.join(dropped)}"
    raise RejectedError(
        f"{pointer.product}/{pointer.channel}: this would narrow the rollout of "
        f"{top.version} {cause}",
        means="machines that installed it keep it, as long as it is on offer at all; "
        "what it does to them goes on. Nothing was changed",
        do="to stop it: `updaterd release pause`; to take it back from all: `yank`; "
        "if narrowing is what you want: --force",
        code="narrower",
    )
