# SPDX-License-Identifier: Apache-2.0
"""What release commands print: for people, for programs, while they work."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from updaterd.core.channel import ChannelPointer
    from updaterd.core.pace import Pace
    from updaterd.core.release_notes import Notes
    from updaterd.release.channels.steering import Steered
    from updaterd.release.difference import Signed


def answer(arguments: argparse.Namespace, **fields: object) -> None:
    """Put members into what `--json` prints."""
    arguments.answer = {**arguments.answer, **fields}


def usage(arguments: argparse.Namespace, text: str) -> int:
    """Say to people and programs that a command makes no sense; return its code."""
    from updaterd.cli import EXIT_USAGE

    command = f"updaterd release {arguments.release_command}"
    print(f"{command}: {text}", file=sys.stderr)
    answer(
        arguments,
        error={
            "code": "usage",
            "what": text,
            "means": "nothing was done",
            "do": f"see `{command} --help`",
        },
    )
    return EXIT_USAGE


def show_notes(arguments: argparse.Namespace, *changes: "Steered") -> None:
    """Print what the publisher should know about channels that were changed."""
    for steered in changes:
        for note in steered.notes:
            print(f"note: {note}")
        # of a halt, `watch` says more itself
        if steered.pointer.paused and not steered.pointer.halted:
            print(
                "the channel is paused, machines install nothing from it: "
                "`updaterd release resume`"
            )
    answer(
        arguments,
        channels=[steered.pointer.as_custom() for steered in changes],
        changed=[steered.pointer.channel for steered in changes if steered.changed],
        notes=[note for steered in changes for note in steered.notes],
    )


def show_channel(pointer: "ChannelPointer") -> None:
    """Print what a channel offers.

    Whoever has a key of the channel chose its texts: none of them writes the screen
    of who reads it, perhaps to sign it.
    """
    from updaterd.core.rollout import salt_of
    from updaterd.core.text import printable

    state = "paused" if pointer.paused else "active"
    if pointer.paused and pointer.reason:
        state += f" ({pointer.reason})"
    print(f"{pointer.product}/{pointer.channel}: {state}", end="")
    print(f", floor seq {pointer.floor_seq}" if pointer.floor_seq else "")
    for offer in pointer.releases:
        rollout = offer.rollout
        window = f" over {rollout.window_s} s" if rollout.window_s else ""
        urgent = ", critical" if offer.urgency == "critical" else ""
        if offer.from_seq_min:
            urgent += f", over seq {offer.from_seq_min} or later"
        whose = f" for {', '.join(offer.platforms)}" if offer.platforms else ""
        tagged = f" and those tagged {', '.join(rollout.tags)}" if rollout.tags else ""
        line = (
            f"  {offer.version} (seq {offer.seq}): {rollout.permille} of 1000 machines"
            f"{tagged}{whose}{window}{urgent}"
        )
        print(printable(line))
        if rollout.salt != salt_of(pointer.product, offer.version, offer.seq):
            print(printable(f"    drawn by another lot than others: {rollout.salt!r}"))
        if offer.pace is not None:
            print(f"    pace: {pace(offer.pace)}")
    show_stones(pointer)
    show_plan(pointer)
    if not pointer.releases:
        print("  offers nothing")


def pace(signed: "Pace") -> str:
    """Return a pace and its time, in a few words."""
    return f"{signed}, from {_moment(signed.published_at)} on"


def _moment(seconds: int) -> str:
    """Return a time, for a person."""
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def show_plan(pointer: "ChannelPointer") -> None:
    """Print how the newest release is rolled out, and where that stands."""
    from updaterd.core.plan import BY_HAND, RUNNING, described, reach_of
    from updaterd.core.text import printable

    plan = pointer.plan
    if plan is None:
        return
    since = _moment(plan.since)
    print(f"  plan of {plan.version}: {described(plan.steps)}")
    if plan.state == RUNNING:
        over = _moment(plan.since + plan.now_at.dwell_s)
        print(
            f"    step {plan.step + 1} of {len(plan.steps)}, {reach_of(plan.now_at)}: "
            f"since {since}, {plan.now_at.min_reports} machines "
            "have to tell how it ended"
        )
        after = "the end" if plan.is_last else "the next step"
        print(f"    {after}: {over} at the earliest")
    else:
        since_text = f"since {since}"
        reason = printable(plan.reason)
        if plan.state == BY_HAND:
            print(f"    {reason} {since_text}: `release watch` leaves it alone")
        else:
            state = printable(plan.state)
            print(f"    {state} {since_text}{reason and ': '}{reason}")


def can_draw() -> bool:
    """Tell whether a bar can be drawn: a dumb terminal cannot go back in its line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def signed(release: "Signed") -> str:
    """Return who signed a release, and when, in a few words."""
    when = f"{release.at:%Y-%m-%d %H:%M} UTC" if release.at else "at an unknown time"
    return f"{when} by {', '.join(release.keys) or 'keys that are not known here'}"


def show_release_notes(notes: "Notes") -> None:
    """Print the notes of a release, in every language."""
    from updaterd.core.release_notes import ANY, plain

    for language, text in notes:
        print(f"  notes{'' if language == ANY else f' ({language})'}:")
        for line in plain(text).split("\n"):
            print(f"    {line}".rstrip())


def show_stones(pointer: "ChannelPointer") -> None:
    """Print which releases older machines install on their way."""
    for stone in pointer.stones:
        over = f" over seq {stone.from_seq_min} or later" if stone.from_seq_min else ""
        print(
            f"  {stone.version} (seq {stone.seq}){over}: on the way of older machines"
        )


class Bar:
    """Progress: a bar on a terminal; elsewhere a line at the start and one at the end.

    Args:
        title: of all that is being made.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._step = ""
        self._bar: Any = None

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show it."""
        if can_draw():
            self._draw(step, done, total)
        elif not self._step:
            self._step = step
            print(f"building {self._title}: bundle and deltas", file=sys.stderr)
            sys.stderr.flush()

    def _draw(self, step: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if step != self._step:
            self._clear()
            self._step = step
            self._bar = tqdm(
                total=total, desc=step, unit="B", unit_scale=True, unit_divisor=1024
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End the bar; say that it is done, if it is."""
        drawn = self._bar is not None
        self._clear()
        if self._step and kind is None and not drawn:
            print(f"built {self._title}", file=sys.stderr)
